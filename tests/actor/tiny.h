// A tiny random model and a tokenizer of letters for the tests of this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actor/engine.h"
#include "common/base/rng.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb::actor {

inline policy_model::ModelShape TinyShape() {
  policy_model::ModelShape s;
  s.layers = 2, s.hidden = 64, s.heads = 4, s.kv_heads = 2, s.head_dim = 16, s.ffn = 128,
  s.vocab = 61;
  s.max_positions = 160;
  s.eos_tokens = {60};
  return s;
}

// Large enough weights that distributions are far from flat and depend on the whole context. One
// thread: a second one only waits at this size, and slows everything down where cores are shared.
inline policy_model::Weights TinyWeights(uint64_t seed = 3) {
  policy_model::SetThreads(1);
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(seed, 0.15);
  return weights;
}

// Token i is a letter for i < 52, else "<52>" to "<59>" and "<5x>" for the end token 60.
class LetterTokenizer : public Tokenizer {
 public:
  LetterTokenizer() {
    for (int32_t i = 0; i < 61; ++i) {
      if (i < 52) {
        texts_.emplace_back(1, static_cast<char>(i < 26 ? 'a' + i : 'A' + i - 26));
      } else {
        texts_.emplace_back("<5")
            .append(1, static_cast<char>(i < 60 ? '0' + i - 50 : 'x'))
            .append(">");
      }
    }
  }
  std::vector<int32_t> Encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (const char c : text)
      ids.push_back(c >= 'a' && c <= 'z' ? c - 'a' : c >= 'A' && c <= 'Z' ? c - 'A' + 26 : 52);
    return ids;
  }
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!skip_special || !IsSpecial(id)) text += TokenBytes(id);
    }
    return text;
  }
  std::string_view TokenBytes(int32_t id) const override { return texts_[static_cast<size_t>(id)]; }
  int32_t size() const override { return 61; }
  int32_t Find(std::string_view token) const override {
    for (int32_t i = 0; i < size(); ++i) {
      if (texts_[static_cast<size_t>(i)] == token) return i;
    }
    return -1;
  }
  bool IsSpecial(int32_t id) const override { return id >= 52; }
  const std::string& json() const override { return json_; }

 private:
  std::vector<std::string> texts_;
  std::string json_ = "{}";
};

inline EngineOptions TinyOptions() {
  EngineOptions o;
  o.max_batch = 16;
  o.page_tokens = 8;
  o.kv_budget_mb = 8;
  o.prefill_tokens = 64;
  o.max_new_tokens = 60;
  o.sampling.seed = 11;
  o.eos = {60};
  return o;
}

// Prompts of 1 to 40 tokens with 1 to 4 samples of 5 to 60 tokens.
inline std::vector<GenerateRequest> MixedRequests(int count, uint64_t seed = 5) {
  RandomStream random(seed, 9);
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < count; ++i) {
    GenerateRequest r;
    r.id = static_cast<uint64_t>(i);
    for (uint32_t n = 1 + random.NextBelow(40); n > 0; --n)
      r.tokens.push_back(static_cast<int32_t>(random.NextBelow(60)));
    r.num_samples = 1 + static_cast<int32_t>(random.NextBelow(4));
    r.prompt_key = RandomAddress(Purpose::kTrain, r.id);
    r.limit = 5 + static_cast<int32_t>(random.NextBelow(56));
    requests.push_back(r);
  }
  return requests;
}

}  // namespace plumb::actor
