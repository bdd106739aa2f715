// Answers of an engine, whether two of them are the same, and how far a learner's log-probs are
// from those that were recorded.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "actor/engine.h"
#include "common/base/rng.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {

inline policy_model::Weights DrawWeights(const policy_model::ModelShape& shape, DType dtype,
                                         double std = 0.15) {
  policy_model::SetThreads(1);
  policy_model::Weights weights(shape, Device::kCpu, dtype);
  weights.Initialise(3, std);
  return weights;
}

struct Answers {
  std::vector<GenerateRequest> requests;
  std::map<std::pair<uint64_t, uint32_t>, GeneratedSample> samples;
  int64_t most_kv_bytes = 0;
};

inline Answers AnswersOf(const policy_model::Weights& weights, const EngineOptions& options,
                         int count = 12) {
  Answers out{.requests = MixedRequests(count), .samples = {}};
  Engine engine(weights.shape(), Device::kCpu, weights.dtype(), options);
  for (const GenerateRequest& r : out.requests) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) out.samples[{r.id, s.sample}] = std::move(s);
  }
  out.most_kv_bytes = engine.counters().most_kv_bytes;
  return out;
}

// mean |learner - actor| over all drawn tokens.
inline double Distance(const policy_model::Weights& weights, const Answers& answers, bool replay) {
  policy_model::PackedBatch batch;
  batch.Clear();
  std::vector<float> sampled;
  for (const auto& [key, s] : answers.samples) {
    std::vector<int32_t> tokens = answers.requests[key.first].tokens;
    std::vector<uint8_t> mask(tokens.size(), 0);
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    mask.resize(tokens.size(), 1);
    batch.Append(tokens, mask, 0, {}, replay ? &s.experts : nullptr);
    sampled.insert(sampled.end(), s.logprobs.begin(), s.logprobs.end());
  }
  policy_model::Transformer model(weights.shape(), Device::kCpu, weights.dtype());
  std::vector<float> scored(sampled.size());
  model.Forward(weights, batch, {.entropy = false}, false, scored, {});
  double sum = 0;
  for (size_t i = 0; i < scored.size(); ++i)
    sum += std::abs(static_cast<double>(scored[i]) - static_cast<double>(sampled[i]));
  return sum / static_cast<double>(scored.size());
}

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;  // by (request, sample)

inline void Collect(Engine& engine, Samples& out) {
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) {
      const auto key = std::make_pair(r.id, s.sample);
      EXPECT_TRUE(out.emplace(key, std::move(s)).second) << "answered twice";
    }
  }
}

// All requests, either at once or a few at a time between steps.
inline Samples Generate(const EngineOptions& options, const policy_model::Weights& weights,
                        const std::vector<GenerateRequest>& requests, bool staggered = false,
                        uint64_t* tokens = nullptr) {
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  Samples out;
  RandomStream random(77, 0);
  for (const GenerateRequest& r : requests) {
    engine.Submit(r);
    if (staggered) {
      for (uint32_t n = random.NextBelow(6); n > 0; --n) engine.Step(weights, 0);
      Collect(engine, out);
    }
  }
  while (engine.Step(weights, 0)) Collect(engine, out);
  Collect(engine, out);
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  if (tokens != nullptr) *tokens += engine.counters().generated_tokens;
  return out;
}

// The same tokens, and log-probs within `tolerance`; 0: bit for bit.
inline void ExpectSame(const Samples& a, const Samples& b, const std::string& what,
                       float tolerance = 0) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (const auto& [key, x] : a) {
    const GeneratedSample& y = b.at(key);
    ASSERT_EQ(x.tokens, y.tokens) << what << ", request " << key.first << " sample " << key.second;
    ASSERT_EQ(x.finish, y.finish) << what;
    for (size_t i = 0; i < x.logprobs.size(); ++i) {
      ASSERT_LE(std::abs(x.logprobs[i] - y.logprobs[i]), tolerance)
          << what << ", request " << key.first << " sample " << key.second << " token " << i;
    }
  }
}

}  // namespace plumb::actor
