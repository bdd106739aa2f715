// Prompts that begin alike: what of them is shared changes nothing of an answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "actor/engine.h"
#include "actor/engine_layout.h"
#include "common/base/rng.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

// A few beginnings, of up to 40 tokens, with something else behind each.
std::vector<GenerateRequest> AlikeRequests(int count, uint64_t seed = 5) {
  RandomStream random(seed, 3);
  std::vector<std::vector<int32_t>> beginnings(4);
  for (auto& beginning : beginnings) {
    for (uint32_t n = 10 + random.NextBelow(31); n > 0; --n)
      beginning.push_back(static_cast<int32_t>(random.NextBelow(60)));
  }
  std::vector<GenerateRequest> requests = MixedRequests(count, seed);
  for (GenerateRequest& r : requests) {
    const auto& beginning = beginnings[random.NextBelow(4)];
    r.tokens.insert(r.tokens.begin(), beginning.begin(), beginning.end());
  }
  return requests;
}

struct Talk {
  Samples samples;
  EngineCounters counters;
};

// Three rounds; in the later ones each prompt is what was asked and answered before, with more
// behind it.
Talk TalkThrough(const EngineOptions& options, const policy_model::Weights& weights,
                 bool staggered) {
  Engine engine(weights.shape(), Device::kCpu, weights.dtype(), options);
  RandomStream random(5, 5);
  std::vector<GenerateRequest> requests = AlikeRequests(24);
  Talk out;
  for (uint64_t round = 0; round < 3; ++round) {
    std::map<uint64_t, GenerateRequest> asked;
    Samples answers;
    for (GenerateRequest& r : requests) {
      r.limit = std::min(r.limit, 12);
      asked[r.id] = r;
      engine.Submit(r);
      for (uint32_t n = staggered ? random.NextBelow(6) : 0; n > 0; --n) engine.Step(weights, 0);
    }
    while (engine.Step(weights, 0)) {
    }
    Collect(engine, answers);
    EXPECT_EQ(engine.free_pages(), engine.num_pages());
    requests.clear();
    for (auto& [key, sample] : answers) {
      if (key.second == 0) {
        GenerateRequest next = asked[key.first];
        next.id += 1000;
        next.prompt_key += 1000;
        next.tokens.insert(next.tokens.end(), sample.tokens.begin(), sample.tokens.end());
        next.tokens.push_back(static_cast<int32_t>(round) + 7);
        requests.push_back(std::move(next));
      }
      out.samples.emplace(key, std::move(sample));
    }
  }
  EXPECT_TRUE(engine.idle());
  out.counters = engine.counters();
  return out;
}

TEST(EnginePrefix, AnswersAreTheSameBitsWithAndWithout) {
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TinyOptions();
  const Talk reference = TalkThrough(options, weights, false);
  EXPECT_EQ(reference.counters.prefix_tokens_reused, 0u);
  options.share_prefixes = options.share_answers = true;
  for (const int32_t max_batch : {1, 4, 16}) {
    for (const int32_t prefill_tokens : {7, 64}) {
      options.max_batch = max_batch;
      options.prefill_tokens = prefill_tokens;
      const Talk talk = TalkThrough(options, weights, max_batch != 16);
      ExpectSame(reference.samples, talk.samples, "max_batch " + std::to_string(max_batch));
      if (HasFatalFailure()) return;
      const EngineCounters& c = talk.counters;
      EXPECT_EQ(c.prefill_tokens + c.prefix_tokens_reused, reference.counters.prefill_tokens);
      EXPECT_GT(4 * c.prefix_tokens_reused, c.prefill_tokens) << "max_batch " << max_batch;
    }
  }
  // Prompts alone: their answers are computed again where they are asked about.
  options.share_answers = false;
  const Talk prompts = TalkThrough(options, weights, false);
  ExpectSame(reference.samples, prompts.samples, "prompts alone");
  EXPECT_GT(prompts.counters.prefix_tokens_reused, 0u);
}

// A pool of a few sequences: what is kept for others goes when pages are needed.
TEST(EnginePrefix, WhatNobodyReadsMakesRoom) {
  policy_model::ModelShape shape = TinyShape();
  shape.layers = 4;
  shape.kv_heads = 4;
  shape.head_dim = 32;
  shape.max_positions = 160;
  policy_model::SetThreads(1);
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  EngineOptions options = TinyOptions();
  options.kv_budget_mb = 1;  // 32 pages of 8 tokens: less than two of the longest sequences
  const Talk reference = TalkThrough(options, weights, false);
  options.share_prefixes = options.share_answers = true;
  const Talk talk = TalkThrough(options, weights, false);
  ExpectSame(reference.samples, talk.samples, "a small pool");
  EXPECT_LE(talk.counters.most_kv_bytes, 1 << 20);
  EXPECT_GT(talk.counters.prefix_tokens_reused, 0u);
  EXPECT_EQ(talk.counters.prefill_tokens + talk.counters.prefix_tokens_reused,
            reference.counters.prefill_tokens);
}

TEST(EnginePrefix, OtherWeightsComputeEverythingAnew) {
  const policy_model::Weights before = TinyWeights(3), after = TinyWeights(4);
  EngineOptions options = TinyOptions();
  options.share_prefixes = options.share_answers = true;
  Engine engine(before.shape(), Device::kCpu, DType::kFloat32, options);
  const std::vector<GenerateRequest> requests = AlikeRequests(12);
  const auto answer = [&](const policy_model::Weights& weights, int64_t version) {
    Samples out;
    for (const GenerateRequest& r : requests) engine.Submit(r);
    while (engine.Step(weights, version)) {
    }
    Collect(engine, out);
    return out;
  };
  const Samples first = answer(before, 1);
  EXPECT_GT(engine.idle_pages(), 0);
  const uint64_t within = engine.counters().prefix_tokens_reused;
  const Samples again = answer(before, 1);
  ExpectSame(first, again, "the same weights");
  const uint64_t twice = engine.counters().prefix_tokens_reused;
  EXPECT_GT(twice - within, within) << "all of it is known by then";
  const Samples other = answer(after, 2);
  EXPECT_EQ(engine.counters().prefix_tokens_reused - twice, within) << "as in the first round";
  options.share_prefixes = options.share_answers = false;
  ExpectSame(Generate(options, after, requests), other, "other weights");
}

// Weights that change while prompts are being computed: these go on, and nobody takes from them.
TEST(EnginePrefix, APromptOfTwoVersionsIsNobodysBeginning) {
  const policy_model::Weights before = TinyWeights(3), after = TinyWeights(4);
  EngineOptions options = TinyOptions();
  options.share_prefixes = options.share_answers = true;
  options.prefill_tokens = 16;
  Engine engine(before.shape(), Device::kCpu, DType::kFloat32, options);
  GenerateRequest mixed{.id = 1, .num_samples = 1, .prompt_key = 1, .limit = 20};
  for (int32_t i = 0; i < 60; ++i) mixed.tokens.push_back(i % 50);
  engine.Submit(mixed);
  engine.Step(before, 1);  // 16 tokens of it
  GenerateRequest pure = mixed;
  pure.id = pure.prompt_key = 2;
  engine.Submit(pure);
  while (engine.Step(after, 2)) {
  }
  EXPECT_EQ(engine.counters().prefix_tokens_reused, 0u);
  Samples out;
  Collect(engine, out);
  options.share_prefixes = options.share_answers = false;
  const Samples alone = Generate(options, after, {pure});
  EXPECT_EQ(out.at({2, 0}).tokens, alone.at({2, 0}).tokens);
  EXPECT_EQ(out.at({2, 0}).logprobs, alone.at({2, 0}).logprobs);
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
}

TEST(EnginePrefix, ModelsWhoseFirstPagesAreGoneSayWhy) {
  EngineOptions options = TinyOptions();
  options.share_prefixes = true;
  const auto why = [&](const policy_model::ModelShape& shape) {
    return Engine(shape, Device::kCpu, DType::kFloat32, options).why_not_shared();
  };
  EXPECT_EQ(why(TinyShape()), "");
  policy_model::ModelShape sliding = TinyShape();
  sliding.window = 11;
  EXPECT_NE(why(sliding).find("sliding"), std::string::npos);
  options.keep_all_pages = true;
  EXPECT_EQ(why(sliding), "") << "all pages are kept";
  options.keep_all_pages = false;
  policy_model::ModelShape experts = TinyShape();
  experts.family = "plumb";
  experts.experts = {.count = 4, .widths = {32}, .per_token = 2, .dense = {0, 0}};
  EXPECT_EQ(why(experts), "");
  options.record_experts = true;
  EXPECT_NE(why(experts).find("experts"), std::string::npos);
}

}  // namespace
}  // namespace plumb::actor
