#include "actor/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <utility>

#include "actor/device_array.h"
#include "actor/prompt_check.h"
#include "actor/row_sampling.h"
#include "actor/sequence.h"
#include "policy_model/transformer.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

// With numbers in B.
policy_model::Weights AdaptedWeights() {
  policy_model::Weights weights = TinyWeights();
  weights.AddAdapter({.rank = 4, .alpha = 8}, 5);
  policy_model::ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const auto& e : set.table->entries()) {
    for (int64_t i = 0; e.name.ends_with("lora_B") && i < e.elements; ++i) {
      set.flat.f32()[e.offset + i] = 0.1f * random.NextNormal();
    }
  }
  return weights;
}

TEST(Engine, AnswersOfAnAdapterDoNotDependOnTheBatchAndAreNotThoseOfTheBase) {
  const policy_model::Weights weights = AdaptedWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(12);
  EngineOptions options = TinyOptions();
  options.max_batch = 32;
  const Samples reference = Generate(options, weights, requests);
  for (const int32_t max_batch : {1, 3, 5}) {
    options.max_batch = max_batch;
    ExpectSame(reference, Generate(options, weights, requests, true),
               "max_batch " + std::to_string(max_batch));
  }
  const Samples base = Generate(options, weights.WithoutAdapters(), requests);
  int equal = 0;
  for (const auto& [key, s] : reference) equal += s.tokens == base.at(key).tokens;
  EXPECT_LT(equal, static_cast<int>(reference.size()) / 2);
}

TEST(Engine, AnswersDoNotDependOnTheBatch) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(60);
  uint64_t tokens = 0;
  EngineOptions options = TinyOptions();
  options.max_batch = 32;
  const Samples reference = Generate(options, weights, requests, false, &tokens);
  std::vector<GenerateRequest> reversed(requests.rbegin(), requests.rend());
  for (const int32_t max_batch : {1, 2, 3, 5, 32}) {
    options.max_batch = max_batch;
    options.prefill_tokens = max_batch == 3 ? 7 : 64;  // prompts in chunks
    ExpectSame(reference, Generate(options, weights, reversed, true, &tokens),
               "max_batch " + std::to_string(max_batch) + " staggered");
    if (HasFatalFailure()) return;
  }
  options.max_batch = 5;
  ExpectSame(reference, Generate(options, weights, requests, false, &tokens),
             "max_batch 5 at once");
  RecordProperty("tokens", static_cast<int>(tokens));
  EXPECT_GE(tokens, 20000u);
  // Not trivially equal: samples of one prompt differ, and both ends occur.
  std::map<FinishReason, int> ends;
  for (const auto& [key, s] : reference) ++ends[s.finish];
  EXPECT_GT(ends[FinishReason::kStop], 5);
  EXPECT_GT(ends[FinishReason::kLength], 5);
  int pairs = 0, equal = 0;
  for (const auto& [key, s] : reference) {
    const auto other = reference.find({key.first, key.second + 1});
    if (other != reference.end()) ++pairs, equal += s.tokens == other->second.tokens;
  }
  EXPECT_LT(equal, pairs / 10);
}

// How a product is split over threads may depend on its rows: the same with more than one thread,
// at smoke size.
TEST(Engine, AnswersDoNotDependOnTheBatchWithTwoThreads) {
  const policy_model::Weights weights = TinyWeights();
  policy_model::SetThreads(2);
  const std::vector<GenerateRequest> requests = MixedRequests(4);
  EngineOptions options = TinyOptions();
  const Samples reference = Generate(options, weights, requests);
  for (const int32_t max_batch : {3, 5}) {
    options.max_batch = max_batch;
    ExpectSame(reference, Generate(options, weights, requests, true),
               "max_batch " + std::to_string(max_batch));
  }
  policy_model::SetThreads(1);
}

TEST(Engine, AnswersDoNotDependOnPagesOrSharing) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  EngineOptions options = TinyOptions();
  const Samples reference = Generate(options, weights, requests);
  for (const int32_t page_tokens : {1, 4, 16}) {
    options.page_tokens = page_tokens;
    // Attention adds up page by page: another page size is another order of the same sum.
    ExpectSame(reference, Generate(options, weights, requests),
               "page_tokens " + std::to_string(page_tokens), 1e-4f);
  }
  // Every sample a request of its own: nothing is shared.
  std::vector<GenerateRequest> apart;
  for (const GenerateRequest& r : requests) {
    for (int32_t g = 0; g < r.num_samples; ++g) {
      GenerateRequest one = r;
      one.num_samples = 1;
      one.first_sample = static_cast<uint32_t>(g);
      apart.push_back(one);
    }
  }
  Engine shared(weights.shape(), Device::kCpu, DType::kFloat32, options);
  Engine alone(weights.shape(), Device::kCpu, DType::kFloat32, options);
  for (const GenerateRequest& r : requests) shared.Submit(r);
  for (const GenerateRequest& r : apart) alone.Submit(r);
  while (shared.Step(weights, 0)) {
  }
  while (alone.Step(weights, 0)) {
  }
  Samples a, b;
  Collect(shared, a);
  Collect(alone, b);
  ExpectSame(a, b, "shared or alone");
  EXPECT_LT(shared.counters().prefill_tokens, alone.counters().prefill_tokens)
      << "a prompt is prefilled once a group";
  int64_t prompt_tokens = 0;
  for (const GenerateRequest& r : requests)
    prompt_tokens += static_cast<int64_t>(r.tokens.size()) - 1;
  EXPECT_EQ(shared.counters().prefill_tokens, static_cast<uint64_t>(prompt_tokens));
}

// Pages that hold a whole sequence are never given back, and a row's bits do not depend on the
// pages.
TEST(Engine, AnswersAreTheSameWhereSlidingLayersGivePagesBack) {
  policy_model::ModelShape shape = TinyShape();
  shape.family = "mistral";
  shape.window = 11;
  policy_model::SetThreads(1);
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  EngineOptions options = TinyOptions();
  options.prefill_tokens = 7;
  options.page_tokens = static_cast<int32_t>(shape.max_positions);
  const Samples kept = Generate(options, weights, requests);
  options.page_tokens = 4;
  ExpectSame(kept, Generate(options, weights, requests, true), "given back");
  // Rings of 4 pages for an answer, besides the 4 of its prompt, and of 5 for a prompt, instead of
  // 40 for both.
  Engine probe(shape, Device::kCpu, DType::kFloat32, options);
  EXPECT_EQ(probe.num_pages(), options.max_batch * (2 * 4 + 5));
  shape.sliding = {1, 0};
  shape.family = "olmo3";
  EXPECT_EQ(Engine(shape, Device::kCpu, DType::kFloat32, options).num_pages(),
            options.max_batch * (2 * 40 + 2 * 4 + 5))
      << "a layer that sees all keeps its own pages only";
}

// Of every family whose layers mix: the bits with a pool a kind of layers are those with all pages
// kept, however scarce the pools are.
TEST(Engine, AnswersAreTheSameWhereOnlySomeLayersGivePagesBack) {
  policy_model::SetThreads(1);
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  for (const char* family : {"gemma3_text", "olmo3", "smollm3", "qwen2"}) {
    policy_model::ModelShape shape = TinyShape();
    shape.family = family;
    shape.layers = 6;
    shape.window = 11;
    shape.local_rope_theta = family == std::string("gemma3_text") ? 10000 : shape.rope_theta;
    shape.sliding = {1, 1, 0, 1, 0, 1};
    policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.15);
    EngineOptions options = TinyOptions();
    options.prefill_tokens = 7;
    options.page_tokens = 4;
    options.keep_all_pages = true;
    const Samples kept = Generate(options, weights, requests);
    options.keep_all_pages = false;
    ExpectSame(kept, Generate(options, weights, requests, true), family);
    // A MiB, of which 16 slots could use three.
    options.kv_budget_mb = 1;
    options.longest = 100;
    Engine probe(shape, Device::kCpu, DType::kFloat32, options);
    EXPECT_LT(probe.num_pages(), options.max_batch * (2 * 40 + 2 * 4 + 5));
    ExpectSame(kept, Generate(options, weights, requests, true), std::string(family) + ", scarce");
  }
}

// One layer in six sees everything, as in Gemma 3.
TEST(Engine, SlidingLayersOf8kTokensHoldTheirWindow) {
  policy_model::SetThreads(1);
  policy_model::ModelShape shape = TinyShape();
  shape.family = "gemma3_text";
  shape.layers = 6, shape.hidden = 32, shape.heads = 2, shape.kv_heads = 1, shape.ffn = 32;
  shape.max_positions = 8192;
  shape.window = 512;
  shape.local_rope_theta = 10000;
  shape.sliding = {1, 1, 1, 1, 1, 0};
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  GenerateRequest request;
  RandomStream random(8, 8);
  for (int i = 0; i < 8192 - 60; ++i)
    request.tokens.push_back(static_cast<int32_t>(random.NextBelow(60)));
  request.num_samples = 2;
  EngineOptions options = TinyOptions();
  options.page_tokens = 16;
  options.prefill_tokens = 256;
  options.kv_budget_mb = 64;
  int64_t bytes[2];
  Samples answers[2];
  for (const bool keep : {true, false}) {
    options.keep_all_pages = keep;
    Engine engine(shape, Device::kCpu, DType::kFloat32, options);
    engine.Submit(request);
    while (engine.Step(weights, 0)) {
    }
    Collect(engine, answers[keep ? 1 : 0]);
    bytes[keep ? 1 : 0] = engine.counters().most_kv_bytes;
  }
  ExpectSame(answers[0], answers[1], "8k tokens");
  std::printf(
      "2 answers of 8192 tokens, 5 of 6 layers sliding: %.2f MiB of pages, %.2f MiB with "
      "all kept\n",
      static_cast<double>(bytes[0]) / (1 << 20), static_cast<double>(bytes[1]) / (1 << 20));
  EXPECT_LT(bytes[0], bytes[1] / 3);
}

TEST(Engine, AScarcePoolOnlyCostsTime) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(40);
  EngineOptions options = TinyOptions();
  options.max_batch = 64;
  const Samples reference = Generate(options, weights, requests);
  options.kv_budget_mb = 1;  // 256 pages of 8 tokens: too few for 64 samples
  Engine probe(weights.shape(), Device::kCpu, DType::kFloat32, options);
  ASSERT_EQ(probe.num_pages(), 256);
  int32_t most = 0;
  for (const GenerateRequest& r : requests) probe.Submit(r);
  while (probe.Step(weights, 0)) most = std::max(most, probe.running());
  EXPECT_LT(most, 60) << "the pool was never scarce";
  Samples scarce;
  Collect(probe, scarce);
  ExpectSame(reference, scarce, "1 MiB");
  EXPECT_EQ(probe.free_pages(), probe.num_pages());
}

TEST(Engine, LogprobsAreThoseOfTheTrainingForward) {
  const policy_model::Weights base = TinyWeights(), adapted = AdaptedWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  for (const auto& [which, temperature] :
       {std::pair(&base, 1.0f), std::pair(&base, 0.7f), std::pair(&adapted, 1.0f)}) {
    const policy_model::Weights& weights = *which;
    EngineOptions options = TinyOptions();
    options.sampling.temperature = temperature;
    const Samples samples = Generate(options, weights, requests);
    policy_model::PackedBatch batch;
    batch.Clear();
    std::vector<float> sampled;
    for (const auto& [key, s] : samples) {
      std::vector<int32_t> tokens = requests[key.first].tokens;
      std::vector<uint8_t> mask(tokens.size(), 0);
      tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
      mask.resize(tokens.size(), 1);
      batch.Append(tokens, mask);
      sampled.insert(sampled.end(), s.logprobs.begin(), s.logprobs.end());
    }
    ASSERT_EQ(batch.targets.size(), sampled.size());
    policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> scored(sampled.size());
    model.Forward(weights, batch, {temperature, false}, false, scored, {});
    double sum = 0, spread = 0;
    for (size_t i = 0; i < scored.size(); ++i) {
      sum += std::abs(scored[i] - sampled[i]);
      spread = std::max(spread, std::abs(double{scored[i]}));
    }
    const double mean = sum / static_cast<double>(scored.size());
    std::printf(
        "[          ] temperature %.1f: mean |actor - learner| log-prob %.2e over %zu tokens\n",
        temperature, mean, scored.size());
    EXPECT_LE(mean, 1e-4);
    EXPECT_GT(spread, 3.0);
  }
}

// With each filter and all together: the training forward over the recorded sets gives the
// log-probs that were recorded.
TEST(Engine, LogprobsOfFilteredDrawsAreThoseOfTheTrainingForwardOverTheirSets) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(12);
  const std::vector<kernels::SamplingOptions> filters = {
      {.top_k = 5, .seed = 11},
      {.top_p = 0.8f, .seed = 11},
      {.min_p = 0.1f, .seed = 11},
      {.temperature = 0.8f, .top_k = 12, .top_p = 0.9f, .min_p = 0.05f, .seed = 11}};
  for (const auto& filter : filters) {
    EngineOptions options = TinyOptions();
    options.sampling = filter;
    for (const auto& [key, s] : Generate(options, weights, {requests[0]}))
      EXPECT_TRUE(s.kept.empty()) << "nobody asked";
    options.record_kept = true;
    const Samples samples = Generate(options, weights, requests);
    policy_model::PackedBatch batch, whole;
    batch.Clear(), whole.Clear();
    std::vector<float> sampled;
    std::map<std::pair<uint64_t, uint32_t>, std::vector<uint8_t>> sets;
    for (const auto& [key, s] : samples) {
      std::vector<int32_t> tokens = requests[key.first].tokens;
      std::vector<uint8_t> mask(tokens.size(), 0);
      auto& kept = sets[key];
      kept.assign(tokens.size(), 0);
      kept.insert(kept.end(), s.kept.begin(), s.kept.end());
      tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
      mask.resize(tokens.size(), 1);
      batch.Append(tokens, mask, 0, kept);
      whole.Append(tokens, mask);
      sampled.insert(sampled.end(), s.logprobs.begin(), s.logprobs.end());
    }
    policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> scored(sampled.size()), unfiltered(sampled.size());
    model.Forward(weights, batch, {filter.temperature, false}, false, scored, {});
    model.Forward(weights, whole, {filter.temperature, false}, false, unfiltered, {});
    double worst = 0, apart = 0;
    for (size_t i = 0; i < scored.size(); ++i) {
      worst = std::max(worst, std::abs(double{scored[i]} - double{sampled[i]}));
      apart +=
          std::abs(double{unfiltered[i]} - double{sampled[i]}) / static_cast<double>(scored.size());
    }
    EXPECT_LE(worst, 1e-4);
    EXPECT_GT(apart, 0.02) << "the filter cuts too little to show anything";
  }
}

TEST(Engine, SamplingOptionsReachTheSampler) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(8);
  EngineOptions options = TinyOptions();
  options.sampling.temperature = 0;
  const Samples greedy = Generate(options, weights, requests);
  options.sampling.temperature = 1;
  options.sampling.top_k = 1;
  const Samples top1 = Generate(options, weights, requests);
  options.sampling.top_k = 0;
  options.sampling.top_p = 1e-6f;
  const Samples nucleus = Generate(options, weights, requests);
  for (const auto& [key, s] : greedy) {
    EXPECT_EQ(top1.at(key).tokens, s.tokens);
    EXPECT_EQ(nucleus.at(key).tokens, s.tokens);
    // the only token left has all of the mass
    for (const float lp : top1.at(key).logprobs) EXPECT_EQ(lp, 0.0f);
    // of the plain distribution
    EXPECT_LT(*std::min_element(s.logprobs.begin(), s.logprobs.end()), -0.1f);
  }
  options.sampling.top_p = 1;
  options.sampling.seed = 12;
  const Samples other = Generate(options, weights, requests);
  options.sampling.seed = 13;
  int differ = 0;
  for (const auto& [key, s] : Generate(options, weights, requests))
    differ += s.tokens != other.at(key).tokens;
  EXPECT_GT(differ, static_cast<int>(other.size()) / 2) << "the seed is ignored";
}

TEST(Engine, RowsWithoutATokenAreNeverDrawn) {
  policy_model::ModelShape shape = TinyShape();
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  const auto drawn_above = [&](int32_t id) {
    policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.15);
    size_t n = 0;
    for (const auto& [key, s] : Generate(TinyOptions(), weights, requests)) {
      for (const int32_t token : s.tokens) n += token < 60 && token >= id;
    }
    return n;
  };
  EXPECT_GT(drawn_above(50), 0u);
  for (int32_t id = 50; id < 60; ++id) shape.unused_tokens.push_back(id);
  EXPECT_EQ(drawn_above(50), 0u);
}

TEST(Engine, EndsAtEndTokensAndLimits) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(30);
  for (const auto& [key, s] : Generate(TinyOptions(), weights, requests)) {
    ASSERT_FALSE(s.tokens.empty());
    ASSERT_EQ(s.tokens.size(), s.logprobs.size());
    ASSERT_EQ(s.tokens.size(), s.versions.size());
    const int32_t limit = requests[key.first].limit;
    EXPECT_LE(static_cast<int32_t>(s.tokens.size()), limit);
    EXPECT_EQ(std::count(s.tokens.begin(), s.tokens.end() - 1, 60), 0)
        << "went on after the end token";
    EXPECT_EQ(s.finish, s.tokens.back() == 60 ? FinishReason::kStop : FinishReason::kLength);
    if (s.finish == FinishReason::kLength) {
      EXPECT_EQ(static_cast<int32_t>(s.tokens.size()), limit);
    }
  }
}

TEST(Engine, StopStringsCutAfterTheTokenThatCompletesThem) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(12);
  const LetterTokenizer tokenizer;
  EngineOptions options = TinyOptions();
  const Samples plain = Generate(options, weights, requests);
  // A string that ends inside the long text of a special token, and two letters in a row.
  const GeneratedSample& donor = plain.begin()->second;
  ASSERT_GE(donor.tokens.size(), 5u);
  options.stop = {tokenizer.Decode(std::span<const int32_t>(donor.tokens).subspan(2, 2), false),
                  "<5"};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  for (const GenerateRequest& r : requests) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  Samples stopped;
  Collect(engine, stopped);
  int cut = 0;
  for (const auto& [key, s] : plain) {
    size_t n = 0;
    std::string text;
    bool hit = false;
    while (n < s.tokens.size() && !hit) {
      text += tokenizer.TokenBytes(s.tokens[n++]);
      for (const std::string& stop : options.stop) hit |= text.find(stop) != std::string::npos;
    }
    const GeneratedSample& got = stopped.at(key);
    EXPECT_EQ(got.tokens,
              std::vector<int32_t>(s.tokens.begin(), s.tokens.begin() + static_cast<ptrdiff_t>(n)));
    EXPECT_EQ(got.finish, hit ? FinishReason::kStop : s.finish);
    cut += n < s.tokens.size();
  }
  EXPECT_GT(cut, 3);
  EXPECT_THROW(Engine(weights.shape(), Device::kCpu, DType::kFloat32, options, nullptr), Error);
}

TEST(Engine, NonFiniteLogitsAbortTheSampleAndAreCounted) {
  const policy_model::Weights weights = TinyWeights();
  policy_model::Weights broken = TinyWeights();
  broken.flat().f32()[broken.table().final_norm()] = std::numeric_limits<float>::quiet_NaN();
  EngineOptions options = TinyOptions();
  options.eos = {};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  GenerateRequest r;
  r.tokens = {1, 2, 3};
  r.num_samples = 3;
  engine.Submit(r);
  for (int i = 0; i < 5; ++i) engine.Step(weights, 0);  // one prefill, four tokens
  while (engine.Step(broken, 1)) {
  }
  const std::vector<GenerateResult> results = engine.TakeFinished();
  ASSERT_EQ(results.size(), 1u);
  for (const GeneratedSample& s : results[0].samples) {
    EXPECT_EQ(s.finish, FinishReason::kAborted);
    EXPECT_EQ(s.tokens.size(), 4u);
    EXPECT_EQ(s.versions, std::vector<int64_t>(4, 0));
    EXPECT_NE(s.reason.find("NaN"), std::string::npos);
  }
  EXPECT_EQ(engine.counters().nonfinite_samples, 3u);
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
}

TEST(Engine, RefusesRequestsThatCanNeverRun) {
  const policy_model::Weights weights = TinyWeights();
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, TinyOptions());
  GenerateRequest fits, overlong, empty, foreign;
  fits.tokens.assign(100, 1);
  overlong.tokens.assign(101, 1);
  foreign.tokens = {5, 61};
  for (const GenerateRequest& r : {fits, overlong, empty, foreign}) engine.Submit(r);
  const std::vector<GenerateResult> refused = engine.TakeFinished();
  ASSERT_EQ(refused.size(), 3u);
  EXPECT_EQ(refused[0].samples[0].finish, FinishReason::kAborted);
  EXPECT_NE(refused[0].samples[0].reason.find("max_positions = 160"), std::string::npos);
  EXPECT_NE(refused[1].samples[0].reason.find("no tokens"), std::string::npos);
  EXPECT_NE(refused[2].samples[0].reason.find("vocabulary"), std::string::npos);
  EXPECT_EQ(engine.counters().refused_requests, 3u);
  while (engine.Step(weights, 0)) {
  }
  EXPECT_EQ(engine.TakeFinished().size(), 1u);
  GenerateRequest wrong = fits;
  wrong.limit = 61;
  EXPECT_THROW(engine.Submit(wrong), Error);
}

TEST(Engine, EveryTokenCarriesTheVersionThatDrewIt) {
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TinyOptions();
  options.eos = {};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  GenerateRequest r;
  r.tokens = {1, 2, 3};
  r.limit = 10;
  engine.Submit(r);
  int64_t steps = 0;
  while (engine.Step(weights, steps++ < 5 ? 7 : 8)) {
  }
  const std::vector<GenerateResult> results = engine.TakeFinished();
  EXPECT_EQ(results[0].samples[0].versions, (std::vector<int64_t>{7, 7, 7, 7, 8, 8, 8, 8, 8, 8}));
}

}  // namespace
}  // namespace plumb::actor
