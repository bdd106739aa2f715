// actor/engine.h: requests that are given up, go on, are cancelled or sampled in their own way.
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

TEST(Engine, AbandonGivesEverythingBack) {
  const policy_model::Weights weights = TinyWeights();
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, TinyOptions());
  for (const GenerateRequest& r : MixedRequests(20)) engine.Submit(r);
  for (int i = 0; i < 20; ++i) engine.Step(weights, 0);
  const size_t done = engine.TakeFinished().size();
  EXPECT_EQ(engine.Abandon().size(), 20 - done);
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  // And works on.
  const std::vector<GenerateRequest> again = MixedRequests(3);
  for (const GenerateRequest& r : again) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  Samples a;
  Collect(engine, a);
  ExpectSame(Generate(TinyOptions(), weights, again), a, "after Abandon");
}

// A conversation: each prompt is the one before with its answer and more behind it.
TEST(Engine, AConversationGoesOnFromTheKeysAndValuesOfItsLastAnswer) {
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TinyOptions();
  options.max_batch = 1;
  EngineOptions keeping = options;
  keeping.share_prefixes = keeping.share_answers = true;
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, keeping);
  std::vector<int32_t> talk = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  uint64_t prompts = 0;
  for (uint64_t turn = 0; turn < 4; ++turn) {
    const GenerateRequest request{
        .id = turn, .tokens = talk, .num_samples = 1, .prompt_key = turn, .limit = 15};
    const uint64_t kept_before = engine.counters().prefix_tokens_reused;
    engine.Submit(request);
    while (engine.Step(weights, 0)) {
    }
    Samples a;
    Collect(engine, a);
    ExpectSame(Generate(options, weights, {request}), a, "turn " + std::to_string(turn));
    prompts += talk.size() - 1;
    EXPECT_EQ(engine.counters().prefill_tokens + engine.counters().prefix_tokens_reused, prompts);
    const auto& answer = a.begin()->second.tokens;
    if (turn > 0) {  // all but the last page, which may be a part, and the token never fed
      EXPECT_GE(engine.counters().prefix_tokens_reused - kept_before + 8 + 3, talk.size() - 1);
    }
    talk.insert(talk.end(), answer.begin(), answer.end());
    talk.insert(talk.end(), {1, 2, 3});
  }
  // Another conversation has nothing of it; other weights neither, and one page in common is one.
  const auto kept_by = [&](std::vector<int32_t> tokens, int64_t version) {
    const uint64_t before = engine.counters().prefix_tokens_reused;
    const GenerateRequest request{
        .id = 9, .tokens = std::move(tokens), .num_samples = 1, .prompt_key = 3, .limit = 5};
    engine.Submit(request);
    while (engine.Step(weights, version)) {
    }
    Samples a;
    Collect(engine, a);
    ExpectSame(Generate(options, weights, {request}), a, "another conversation");
    return engine.counters().prefix_tokens_reused - before;
  };
  EXPECT_EQ(kept_by({20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30}, 0), 0u);
  EXPECT_EQ(kept_by({20, 21, 22, 23, 24, 25, 26, 27, 50, 51, 52, 53, 54, 55, 56, 57, 58}, 0), 8u);
  EXPECT_EQ(kept_by({20, 21, 22, 23, 24, 25, 26, 27, 50, 51, 52, 53, 54, 55, 56, 57, 58}, 1), 0u);
  EXPECT_EQ(kept_by({20, 21, 22, 23, 24, 25, 26, 27, 50, 51, 52, 53, 54, 55, 56, 57, 58}, 1), 16u);
}

// A host that reads what several steps drew behind the last of them: samples that end meanwhile
// leave later and are the same.
TEST(Engine, StepsEnqueuedTogetherAnswerAsOneByOne) {
  policy_model::SetThreads(1);
  const std::vector<GenerateRequest> requests = MixedRequests(20);
  for (const char* kind : {"all", "slides", "mixes"}) {
    policy_model::ModelShape shape = TinyShape();
    if (kind != std::string("all")) shape.family = "qwen2", shape.window = 11;
    if (kind == std::string("mixes")) shape.sliding = {1, 0};
    policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.15);
    EngineOptions options = TinyOptions();
    options.page_tokens = 4;
    options.steps_together = 1;
    const Samples reference = Generate(options, weights, requests);
    int ended_early = 0;
    for (const auto& [key, s] : reference)
      ended_early += s.finish == FinishReason::kStop && s.tokens.size() > 1;
    EXPECT_GT(ended_early, 5) << "where no answer ends of itself, nobody is late";
    for (const int32_t together : {2, 3, 8}) {
      for (const int32_t max_batch : {1, 5, 16}) {
        options.steps_together = together;
        options.max_batch = max_batch;
        options.share_prefixes = options.share_answers = max_batch != 1;
        const std::string what = std::string(kind) + ", " + std::to_string(together) +
                                 " together, max_batch " + std::to_string(max_batch);
        ExpectSame(reference, Generate(options, weights, requests, max_batch == 5), what);
        if (HasFatalFailure()) return;
      }
    }
    Engine engine(shape, Device::kCpu, DType::kFloat32, options);
    for (const GenerateRequest& r : requests) engine.Submit(r);
    uint64_t calls = 0;
    while (engine.Step(weights, 0)) ++calls;
    EXPECT_LT(3 * calls, engine.counters().decode_steps) << kind;
  }
}

TEST(Engine, ShowsEveryTokenWhenItIsDrawn) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(6);
  EngineOptions options = TinyOptions();
  options.steps_together = 3;
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  for (const GenerateRequest& r : requests) engine.Submit(r);
  std::map<std::pair<uint64_t, uint32_t>, std::vector<int32_t>> shown;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<float>> logprobs;
  std::map<std::pair<uint64_t, uint32_t>, FinishReason> ends;
  while (engine.Step(weights, 0)) {
    for (const DrawnToken& t : engine.last_drawn()) {
      const std::pair key{t.id, t.sample};
      EXPECT_FALSE(ends.contains(key)) << "a token behind the last one";
      shown[key].push_back(t.token);
      logprobs[key].push_back(t.logprob);
      if (t.ended) ends[key] = t.finish;
    }
  }
  Samples results;
  Collect(engine, results);
  ASSERT_EQ(shown.size(), results.size());
  for (const auto& [key, sample] : results) {
    EXPECT_EQ(shown[key], sample.tokens);
    EXPECT_EQ(logprobs[key], sample.logprobs);
    EXPECT_EQ(ends.at(key), sample.finish);
  }
}

// Each request of a mixed batch is answered as in an engine of its own.
TEST(Engine, ARequestMayBeSampledInItsOwnWay) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<kernels::SamplingOptions> ways = {
      {}, {.temperature = 0}, {.temperature = 0.7f, .top_p = 0.8f}, {.top_k = 3}, {.min_p = 0.2f}};
  std::vector<GenerateRequest> requests = MixedRequests(15);
  Samples alone;
  for (size_t i = 0; i < requests.size(); ++i) {
    EngineOptions options = TinyOptions();
    options.sampling = ways[i % ways.size()];
    alone.merge(Generate(options, weights, {requests[i]}));
    requests[i].sampling = ways[i % ways.size()];
  }
  EngineOptions options = TinyOptions();
  options.max_batch = 7;
  options.sampling = {.temperature = 3};
  ExpectSame(alone, Generate(options, weights, requests, true), "a mixed batch");
}

// The last sample of a group is that of a greedy engine, the others are as they were.
TEST(Engine, TheLastSampleOfAGroupMayBeGreedy) {
  const policy_model::Weights weights = TinyWeights();
  std::vector<GenerateRequest> requests = MixedRequests(9);
  EngineOptions greedy = TinyOptions();
  greedy.sampling.temperature = 0;
  const Samples drawn = Generate(TinyOptions(), weights, requests),
                certain = Generate(greedy, weights, requests);
  Samples wanted;
  for (const auto& [key, sample] : drawn) {
    const GenerateRequest& request = requests[key.first];
    const bool last =
        key.second + 1 == request.first_sample + static_cast<uint32_t>(request.num_samples);
    wanted.emplace(key, last ? certain.at(key) : sample);
  }
  for (GenerateRequest& request : requests) request.greedy_last = true;
  ExpectSame(wanted, Generate(TinyOptions(), weights, requests, true), "greedy last");
  EXPECT_TRUE(std::any_of(wanted.begin(), wanted.end(), [&](const auto& sample) {
    return sample.second.tokens != certain.at(sample.first).tokens;
  })) << "nothing is drawn";
}

TEST(RowSampling, NeighboursThatAreDrawnAlikeAreOneCall) {
  RowSampling sampling({.temperature = 2}, 4);
  sampling.Set(1, kernels::SamplingOptions{.temperature = 0});
  const std::vector<int32_t> slots = {3, 0, 1, 2};
  std::vector<std::pair<int64_t, int64_t>> runs;
  std::vector<float> temperatures;
  const auto note = [&](const RowSampling::Run& run) {
    runs.emplace_back(run.begin, run.rows);
    temperatures.push_back(run.options.temperature);
  };
  sampling.ForRuns(slots, note);
  EXPECT_EQ(runs, (std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 1}, {3, 1}}));
  EXPECT_EQ(temperatures, (std::vector<float>{2, 0, 2}));
  sampling.Set(1, std::nullopt);  // the next sample of the slot
  runs.clear();
  sampling.ForRuns(slots, note);
  EXPECT_EQ(runs, (std::vector<std::pair<int64_t, int64_t>>{{0, 4}}));
}

TEST(PromptCheck, ATokenThatTheVocabularyHasNotIsNamed) {
  EXPECT_FALSE(ForeignToken({.tokens = {0, 60}}, 61));
  EXPECT_NE(ForeignToken({.tokens = {0, 61}}, 61)->find("prompt token 1 is 61"), std::string::npos);
}

// Whatever state it is in, a request that is taken out leaves nothing behind and others as they
// are.
TEST(Engine, ARequestCanBeCancelledAtAnyTime) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = MixedRequests(12);
  EngineOptions options = TinyOptions();
  options.max_batch = 5;
  options.prefill_tokens = 7;
  const Samples whole = Generate(options, weights, requests);
  int cancelled = 0, cut = 0;
  for (int after = 0; after < 40; after += 3) {
    Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
    for (const GenerateRequest& r : requests) engine.Submit(r);
    Samples out;
    for (int step = 0; step < after; ++step) engine.Step(weights, 0);
    Collect(engine, out);
    std::vector<uint64_t> gone;
    for (const GenerateRequest& r : requests) {
      if (r.id % 3 == 0 && engine.Cancel(r.id)) gone.push_back(r.id);
    }
    for (const DrawnToken& t : engine.last_drawn())
      cut += std::find(gone.begin(), gone.end(), t.id) != gone.end();
    cancelled += static_cast<int>(gone.size());
    while (engine.Step(weights, 0)) {
      for (const DrawnToken& t : engine.last_drawn())
        EXPECT_EQ(std::find(gone.begin(), gone.end(), t.id), gone.end());
    }
    Collect(engine, out);
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(engine.unstarted(), 0);
    EXPECT_EQ(engine.free_pages(), engine.num_pages());
    Samples others;
    for (const auto& [key, sample] : whole) {
      if (std::find(gone.begin(), gone.end(), key.first) == gone.end()) others[key] = sample;
    }
    ExpectSame(others, out, "cancelled after " + std::to_string(after));
    EXPECT_FALSE(engine.Cancel(requests[0].id));
  }
  EXPECT_GT(cancelled, 20);
  EXPECT_GT(cut, 5) << "of some that had begun";
}

TEST(Engine, ASampleCanBeEndedFromOutside) {
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TinyOptions();
  options.eos = {};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  const GenerateRequest request{.id = 4, .tokens = {1, 2, 3}, .num_samples = 2, .limit = 20};
  const Samples whole = Generate(options, weights, {request});
  engine.Submit(request);
  for (int step = 0; step < 6; ++step) engine.Step(weights, 0);
  EXPECT_FALSE(engine.End(4, 2));
  EXPECT_TRUE(engine.End(4, 1));
  EXPECT_FALSE(engine.End(4, 1)) << "it has ended";
  while (engine.Step(weights, 0)) {
    for (const DrawnToken& t : engine.last_drawn()) EXPECT_EQ(t.sample, 0u);
  }
  Samples out;
  Collect(engine, out);
  EXPECT_EQ(out.at({4, 0}).tokens, whole.at({4, 0}).tokens);
  std::vector<int32_t> begin = whole.at({4, 1}).tokens;
  const size_t n = out.at({4, 1}).tokens.size();
  EXPECT_GT(n, 2u);
  EXPECT_LT(n, 7u);
  begin.resize(n);
  EXPECT_EQ(out.at({4, 1}).tokens, begin);
  EXPECT_EQ(out.at({4, 1}).finish, FinishReason::kStop);
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
}

TEST(Engine, TrainAndEvalNeverShareARandomAddress) {
  EXPECT_NE(RandomAddress(Purpose::kTrain, 5), RandomAddress(Purpose::kEval, 5));
  EXPECT_EQ(RandomAddress(Purpose::kTrain, 5), 5u);
  EXPECT_THROW(RandomAddress(Purpose::kTrain, uint64_t{1} << 63), Error);
}

TEST(DeviceArray, HostAndDeviceAreOneOnTheCpu) {
  DeviceArray<uint8_t> bytes(Device::kCpu, 3);
  bytes[2] = 9;
  EXPECT_EQ(bytes.device()[2], 9);
  EXPECT_EQ(bytes.device(), bytes.host());
  DeviceArray<int64_t> one(Device::kCpu, 1);
  one.device()[0] = 4;
  one.Download();
  EXPECT_EQ(one[0], 4);
}
}  // namespace
}  // namespace plumb::actor
