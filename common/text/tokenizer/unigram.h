// Words cut into the tokens of the highest sum of scores: the model "Unigram" of tokenizer.json.
//
// Thread safety: const methods may be called concurrently; Add* before that, from one thread.
// Time: a word's length times the longest token. Scores are natural logarithms; what no token
// covers counts as 10 less than the lowest of them.
// Errors: kCorruption with the file; those of WordEncoder.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/token_table.h"
#include "common/text/tokenizer/word_encoder.h"

namespace plumb {

class Unigram : public TokenModel {
 public:
  explicit Unigram(bool byte_fallback);
  // Ids count from 0.
  void AddToken(std::string_view text, double score, const std::string& where);
  void SetUnknown(int32_t id) { unknown_ = id; }

  int32_t Find(std::string_view text) const override { return tokens_.Find(text); }
  std::unique_ptr<WordEncoder> MakeEncoder() const override;

 private:
  class Encoder;
  struct Edge {
    uint64_t key = 0;  // node << 8 | byte, + 1
    int32_t node = 0;
  };

  size_t SlotOf(uint64_t key) const {
    const size_t mask = edges_.size() - 1;
    size_t i = (key * 0x9E3779B97F4A7C15 >> 32) & mask;
    while (edges_[i].key != 0 && edges_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  // -1 if none.
  int32_t Next(int32_t node, unsigned char byte) const {
    const Edge& e = edges_[SlotOf((static_cast<uint64_t>(node) << 8 | byte) + 1)];
    return e.key == 0 ? -1 : e.node;
  }

  const bool byte_fallback_;
  int32_t unknown_ = -1;
  double lowest_ = 0;
  TokenTable tokens_;
  std::vector<double> scores_;          // by id
  std::array<int32_t, 256> fallback_;   // tokens <0x..>
  std::vector<Edge> edges_;             // a trie; a power of two, at most half full
  std::vector<int32_t> token_of_node_;  // -1: a beginning only
};

}  // namespace plumb
