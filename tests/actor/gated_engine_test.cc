// Models whose tokens see chosen ones beyond their window, through the engine: keys and values of
// all tokens, and a state beside them.
#include <gtest/gtest.h>

#include <map>

#include "actor/engine.h"
#include "actor/pages/page_pools.h"
#include "common/base/error.h"
#include "policy_model/families/family.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

// A layer that slides alone, one with a gate, one that sees all.
policy_model::ModelShape GatedShape() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.layers = 3;
  s.window = 3;
  s.gate_top_k = 2;
  policy_model::SetScales(std::vector<std::string>{"local", "global", "local"}, "test", s);
  return s;
}

policy_model::Weights GatedWeights() {
  policy_model::SetThreads(1);
  policy_model::Weights weights(GatedShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  return weights;
}

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;

Samples Generate(const EngineOptions& options, const policy_model::Weights& weights,
                 const std::vector<GenerateRequest>& requests) {
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  Samples out;
  for (const GenerateRequest& r : requests) engine.Submit(r);
  while (!engine.idle()) {
    engine.Step(weights, 1);
    for (GenerateResult& r : engine.TakeFinished()) {
      for (GeneratedSample& s : r.samples)
        out.emplace(std::make_pair(r.id, s.sample), std::move(s));
    }
  }
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  return out;
}

TEST(GatedEngine, AnswersDoNotDependOnTheBatchNorOnPromptChunks) {
  const policy_model::Weights weights = GatedWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(8);
  EngineOptions options = TinyOptions();
  options.max_batch = 1;
  const Samples want = Generate(options, weights, requests);
  for (const int32_t batch : {3, 16}) {
    for (const int32_t prefill : {1, 5, 64}) {
      options.max_batch = batch;
      options.prefill_tokens = prefill;
      const Samples got = Generate(options, weights, requests);
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [key, sample] : want) {
        ASSERT_EQ(sample.tokens, got.at(key).tokens) << key.first << "/" << key.second;
        ASSERT_EQ(sample.logprobs, got.at(key).logprobs) << batch << " at once, " << prefill;
      }
    }
  }
}

TEST(GatedEngine, LogprobsAreThoseOfTheTrainingForward) {
  const policy_model::Weights weights = GatedWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(6);
  policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  size_t beyond = 0;
  for (const auto& [key, sample] : Generate(TinyOptions(), weights, requests)) {
    std::vector<int32_t> tokens = requests[key.first].tokens;
    std::vector<uint8_t> mask(tokens.size(), 0);
    tokens.insert(tokens.end(), sample.tokens.begin(), sample.tokens.end());
    mask.resize(tokens.size(), 1);
    beyond += tokens.size() > 6;
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, mask);
    std::vector<float> logprob(sample.tokens.size());
    model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
    for (size_t i = 0; i < logprob.size(); ++i) ASSERT_NEAR(logprob[i], sample.logprobs[i], 1e-4);
  }
  EXPECT_GT(beyond, 0u) << "some answers are longer than window and chosen ones";
}

TEST(GatedEngine, AStateThatDoesNotFitIsRefusedWithItsSize) {
  policy_model::ModelShape shape = GatedShape();
  EXPECT_EQ(StateBytes(shape), 4 * 2 * (3 + 2 * 2));
  shape.window = 300'000;
  shape.max_positions = 400'000;
  EngineOptions options = TinyOptions();
  options.kv_budget_mb = 4;
  try {
    const Engine engine(shape, Device::kCpu, DType::kFloat32, options);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "rollout.kv_budget_mb");
    EXPECT_NE(std::string(e.what()).find("does not hold the states of one answer and one prompt"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::actor
