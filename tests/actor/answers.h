// Answers of an engine, and how far a learner's log-probs are from those that were recorded.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "actor/engine.h"
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

}  // namespace plumb::actor
