// Models whose layers have states (actor/state_rows.h) through the engine: instead of keys and
// values, or beside them.
#include <gtest/gtest.h>

#include <map>

#include "actor/engine.h"
#include "actor/pages/kv_pages.h"
#include "actor/pages/page_pools.h"
#include "common/base/error.h"
#include "policy_model/families/family.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape HybridShape() {
  policy_model::ModelShape s = TinyShape();
  s.family = "qwen3_5_text";
  s.layers = 4;
  s.rotated_share = 0.5;
  s.attention_gate = true;
  s.hybrid = {
      .layers = {1, 1, 0, 1}, .taps = 4, .k_heads = 2, .v_heads = 4, .k_dim = 12, .v_dim = 10};
  return s;
}

policy_model::Weights HybridWeights() {
  policy_model::SetThreads(1);
  policy_model::Weights weights(HybridShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  return weights;
}

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;

Samples Generate(const EngineOptions& options, const policy_model::Weights& weights,
                 const std::vector<GenerateRequest>& requests, EngineCounters* counters = nullptr) {
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
  if (counters) *counters = engine.counters();
  return out;
}

void ExpectSame(const Samples& a, const Samples& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (const auto& [key, sample] : a) {
    ASSERT_EQ(sample.tokens, b.at(key).tokens) << what << ", " << key.first << "/" << key.second;
    ASSERT_EQ(sample.logprobs, b.at(key).logprobs) << what;
  }
}

// Every sample by itself, in an engine of its own.
Samples Alone(const policy_model::Weights& weights, const std::vector<GenerateRequest>& requests) {
  EngineOptions options = TinyOptions();
  options.max_batch = 1;
  Samples out;
  for (const GenerateRequest& r : requests) {
    for (int32_t i = 0; i < r.num_samples; ++i) {
      GenerateRequest one = r;
      one.num_samples = 1;
      one.first_sample = static_cast<uint32_t>(i);
      out.merge(Generate(options, weights, {one}));
    }
  }
  return out;
}

TEST(HybridEngine, AnswersDoNotDependOnTheBatchNorOnPromptChunksNorOnSharing) {
  const policy_model::Weights weights = HybridWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(8);
  const Samples want = Alone(weights, requests);
  for (const int32_t batch : {1, 3, 16}) {
    for (const int32_t prefill : {1, 5, 64}) {
      EngineOptions options = TinyOptions();
      options.max_batch = batch;
      options.prefill_tokens = prefill;
      ExpectSame(want, Generate(options, weights, requests),
                 std::to_string(batch) + " at once, chunks of " + std::to_string(prefill));
    }
  }
}

TEST(HybridEngine, AScarceBudgetOnlyCostsTimeAndStatesAreCounted) {
  const policy_model::Weights weights = HybridWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(30);
  const policy_model::ModelShape shape = HybridShape();
  EngineOptions options = TinyOptions();
  options.max_batch = 64;
  EngineCounters counters;
  const Samples want = Generate(options, weights, requests, &counters);
  EXPECT_GE(counters.most_kv_bytes, 4 * StateBytes(shape));
  options.kv_budget_mb = 1;
  EngineCounters scarce;
  ExpectSame(want, Generate(options, weights, requests, &scarce), "1 MiB");
  EXPECT_LE(scarce.most_kv_bytes, 1 << 20);
  EXPECT_GT(scarce.steps, counters.steps);
  EXPECT_LE(Engine::KvBytes(shape, Device::kCpu, DType::kFloat32, options), 1 << 20);
}

TEST(HybridEngine, LogprobsAreThoseOfTheTrainingForward) {
  const policy_model::Weights weights = HybridWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(6);
  policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const Samples samples = Generate(TinyOptions(), weights, requests);
  for (const auto& [key, sample] : samples) {
    std::vector<int32_t> tokens = requests[key.first].tokens;
    std::vector<uint8_t> mask(tokens.size(), 0);
    tokens.insert(tokens.end(), sample.tokens.begin(), sample.tokens.end());
    mask.resize(tokens.size(), 1);
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, mask);
    std::vector<float> logprob(sample.tokens.size());
    model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
    // Token by token there, in chunks here: other orders of sums through 4 layers.
    for (size_t i = 0; i < logprob.size(); ++i) ASSERT_NEAR(logprob[i], sample.logprobs[i], 2e-4);
  }
}

TEST(HybridEngine, WhatWasAbandonedLeavesNothingBehind) {
  const policy_model::Weights weights = HybridWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(5);
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, TinyOptions());
  for (const GenerateRequest& r : MixedRequests(6, 99)) engine.Submit(r);
  for (int i = 0; i < 9; ++i) engine.Step(weights, 1);
  engine.Abandon();
  engine.TakeFinished();  // what had ended before
  for (const GenerateRequest& r : requests) engine.Submit(r);
  Samples out;
  while (!engine.idle()) {
    engine.Step(weights, 1);
    for (GenerateResult& r : engine.TakeFinished()) {
      for (GeneratedSample& s : r.samples)
        out.emplace(std::make_pair(r.id, s.sample), std::move(s));
    }
  }
  ExpectSame(Generate(TinyOptions(), weights, requests), out, "after others");
}

TEST(HybridEngine, StepsEnqueuedTogetherAnswerAsOneByOne) {
  const policy_model::Weights weights = HybridWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(12);
  EngineOptions options = TinyOptions();
  options.steps_together = 1;
  const Samples reference = Generate(options, weights, requests);
  for (const int32_t max_batch : {2, 16}) {
    options.max_batch = max_batch;
    options.steps_together = 3;
    ExpectSame(reference, Generate(options, weights, requests), "three together");
  }
}

// A conversation goes on from its last answer only where that costs nothing: here it is computed
// again.
TEST(HybridEngine, KeptPrefixesAreComputedAgain) {
  const policy_model::Weights weights = HybridWeights();
  EngineOptions options = TinyOptions();
  options.max_batch = 1;
  const auto talk = [&](bool keep) {
    options.share_prefixes = options.share_answers = keep;
    Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
    GenerateRequest r = MixedRequests(1)[0];
    r.num_samples = 1;
    std::vector<std::vector<int32_t>> answers;
    for (int turn = 0; turn < 3; ++turn) {
      r.id = r.prompt_key = static_cast<uint64_t>(turn);
      r.limit = 12;
      engine.Submit(r);
      while (!engine.idle()) engine.Step(weights, 1);
      for (GenerateResult& done : engine.TakeFinished()) {
        answers.push_back(done.samples[0].tokens);
        r.tokens.insert(r.tokens.end(), answers.back().begin(), answers.back().end());
        r.tokens.push_back(7);
      }
    }
    EXPECT_EQ(engine.counters().prefix_tokens_reused, 0u);
    EXPECT_NE(engine.why_not_shared().find("state"), std::string::npos);
    return answers;
  };
  EXPECT_EQ(talk(true), talk(false));
}

// Qwen3.5-2B as far as states and pages go.
policy_model::ModelShape Real() {
  policy_model::ModelShape s;
  s.family = "qwen3_5_text";
  s.layers = 24, s.hidden = 2048, s.heads = 8, s.kv_heads = 2, s.head_dim = 256, s.ffn = 6144;
  s.vocab = 248320, s.max_positions = 32768, s.rotated_share = 0.25, s.attention_gate = true;
  s.hybrid = {.taps = 4, .k_heads = 16, .v_heads = 16, .k_dim = 128, .v_dim = 128};
  for (int l = 0; l < 24; ++l) s.hybrid.layers.push_back((l + 1) % 4 != 0 ? 1 : 0);
  return s;
}

TEST(HybridPages, StatesTakeTheirPartOfTheBudget) {
  const policy_model::ModelShape shape = Real();
  EXPECT_EQ(StateBytes(shape), 18 * 4 * (16 * 128 * 128 + 3 * 6144));
  PageDemand demand{.size = {.max_batch = 64, .prefill_tokens = 512, .max_positions = 32768},
                    .longest = 2048,
                    .page_tokens = 16,
                    .budget_mb = 2048};
  const int64_t page = KvPages::PageBytes(shape, DType::kBFloat16, 16);
  EXPECT_EQ(page, 6 * 2 * 2 * 16 * 256 * 2);
  for (const int64_t budget : {100, 512, 2048, 100000}) {
    demand.budget_mb = budget;
    const int64_t at_once = SequencesAtOnce(shape, DType::kBFloat16, demand);
    const auto pools = DividePages(shape, DType::kBFloat16, demand);
    EXPECT_EQ(pools[0].layers, 6);
    EXPECT_EQ(pools[1].layers, 0);
    EXPECT_LE(2 * at_once * StateBytes(shape) + pools[0].pages * page, budget << 20);
    // As many as find room with their pages, one at least.
    const int64_t sample = 2048 / 16 * page;
    EXPECT_GE(pools[0].pages, at_once > 1 ? at_once * 2048 / 16 : 1);
    if (at_once < 64) {
      EXPECT_GT((at_once + 1) * (sample + 2 * StateBytes(shape)) + sample, budget << 20);
    } else {
      EXPECT_EQ(budget, 100000);
    }
  }
}

TEST(HybridPages, AStateThatDoesNotFitIsRefusedWithItsSize) {
  PageDemand demand{.size = {.max_batch = 64, .prefill_tokens = 512, .max_positions = 32768},
                    .page_tokens = 16,
                    .budget_mb = 38};
  try {
    DividePages(Real(), DType::kBFloat16, demand);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("does not hold the states of one answer and one prompt"),
              std::string::npos)
        << e.what();
    EXPECT_NE(std::string(e.what()).find("raise it"), std::string::npos) << e.what();
  }
}

// Tokens see chosen ones beyond their window: keys and values of all tokens, and a state beside
// them.
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
