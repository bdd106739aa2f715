// Byte-pair merging of words: the model "BPE" of tokenizer.json.
//
// Purpose: a vocabulary of bytes or of characters and its merges by rank; n log n in a word's
// length. Where no merge reaches over the beginning of a word as SentencePiece marks it, a text
// that is one long word is cut there first, which changes no id. Thread safety: const methods may
// be called concurrently; Add*, Set* and Seal before that, from one thread. Errors: kCorruption
// with the file; those of WordEncoder.
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

struct BytePairsOptions {
  bool byte_level = false;     // symbols are bytes; else characters
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool byte_fallback = false;  // a character without a token becomes the tokens <0x..> of its bytes
};

class BytePairs : public TokenModel {
 public:
  explicit BytePairs(BytePairsOptions options);
  // `bytes`: as it stands in a text. kCorruption when ids or bytes repeat.
  void AddToken(std::string_view bytes, int32_t id, const std::string& where);
  // What stands for characters without a token; `fuse`: one for all of them in a row.
  void SetUnknown(int32_t id, bool fuse) {
    unknown_ = id;
    fuse_unknown_ = fuse;
  }
  // Merges in order of rank; both halves and the result have to be tokens (kCorruption).
  void AddMerge(std::string_view left, std::string_view right, const std::string& where);
  // After the last of them, before the first encoder.
  void Seal();

  int32_t Find(std::string_view bytes) const override { return tokens_.Find(bytes); }
  std::unique_ptr<WordEncoder> MakeEncoder() const override;

 private:
  class Encoder;
  static constexpr int32_t kNoRank = 0x7FFFFFFF;
  struct Pair {
    uint64_t key;
    int32_t rank;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t SlotOf(uint64_t key) const {
    const size_t mask = pairs_.size() - 1;
    size_t i = (key * 0x9E3779B97F4A7C15 >> 32) & mask;
    while (pairs_[i].rank != kNoRank && pairs_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  int32_t RankOf(int32_t left, int32_t right) const {
    return pairs_[SlotOf(Key(left, right))].rank;
  }
  bool IsFallback(int32_t id) const;

  const BytePairsOptions options_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  TokenTable tokens_;
  size_t longest_ = 0;                     // bytes of a token
  std::array<int32_t, 256> byte_symbol_;   // tokens of one byte
  std::array<int32_t, 256> fallback_;      // tokens <0x..>
  std::vector<int32_t> character_symbol_;  // tokens of one character of up to three bytes
  std::vector<Pair> pairs_;                // a power of two, at most half full
  std::vector<int32_t> merged_;            // by rank
  std::vector<int32_t> byte_ranks_;        // of two bytes, where those are the symbols
  std::array<bool, 2> crossed_{};          // whether a merge reaches over the front of kMarks
  bool merges_stand_ins_ = false;          // unknown or fallback tokens merge
  std::string mark_;                       // where a word may be cut; empty: nowhere
};

}  // namespace plumb
