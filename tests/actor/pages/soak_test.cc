// An engine under everything at once for a long time: random lengths, stops, turns, requests that
// are given up, weights that change, and pools too small for all of them.
//
// 10^5 tokens in `make test`, 10^7 in `make test-reliability`. Every page is free at the end, every
// request is accounted for, and no answer is longer than it may be.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "actor/engine.h"
#include "common/base/rng.h"
#include "tests/actor/tiny.h"
#include "tests/testing/reliability.h"

namespace plumb::actor {
namespace {

struct Case {
  const char* name;
  bool share = false;  // prefixes
  int64_t window = 0;  // of every layer but the last, or of all
  bool mixed = false;  // the last layer sees everything
  bool turns = false;
  int32_t together = 1;  // steps; no stop strings where it is more
};

policy_model::ModelShape SmallShape(const Case& c) {
  policy_model::ModelShape s = TinyShape();
  s.layers = 2, s.hidden = 16, s.heads = 2, s.kv_heads = 2, s.head_dim = 8, s.ffn = 16;
  s.window = c.window;
  s.family = c.window > 0 ? "qwen2" : s.family;
  if (c.mixed) s.sliding = {1, 0};
  return s;
}

class Soak : public ::testing::TestWithParam<Case> {
 protected:
  // A prompt with one of a few beginnings.
  GenerateRequest Request(uint64_t id) {
    GenerateRequest r;
    r.id = r.prompt_key = id;
    const uint32_t beginning = random_.NextBelow(6);
    for (uint32_t i = 0, n = random_.NextBelow(40); i < n; ++i)
      r.tokens.push_back(static_cast<int32_t>((beginning * 7 + i) % 50));
    for (uint32_t n = 1 + random_.NextBelow(30); n > 0; --n)
      r.tokens.push_back(static_cast<int32_t>(random_.NextBelow(60)));
    r.num_samples = 1 + static_cast<int32_t>(random_.NextBelow(5));
    r.limit = 1 + static_cast<int32_t>(random_.NextBelow(60));
    r.turns = GetParam().turns && random_.NextBelow(2) == 0;
    return r;
  }

  void Answer(Engine& engine, const EndedTurn& turn) {
    std::vector<int32_t> said;
    for (uint32_t n = random_.NextBelow(10); n > 0; --n)
      said.push_back(static_cast<int32_t>(random_.NextBelow(52)));
    if (std::ssize(said) < turn.room && random_.NextBelow(4) != 0) {
      engine.Continue(turn.id, turn.sample, said);  // whose request may be gone by now
      return;
    }
    said.resize(std::min(said.size(), static_cast<size_t>(turn.room)));
    engine.End(turn.id, turn.sample, FinishReason::kLength, "", said);
  }

  RandomStream random_{91, 4};
};

TEST_P(Soak, NoPageIsLostAndEveryRequestComesToAnEnd) {
  const Case& c = GetParam();
  const auto wanted = static_cast<uint64_t>(plumb::testing::Count(20'000, 2'000'000));
  policy_model::SetThreads(1);
  std::vector<policy_model::Weights> weights;
  for (uint64_t seed = 3; seed < 5; ++seed) {
    weights.emplace_back(SmallShape(c), Device::kCpu, DType::kFloat32);
    weights.back().Initialise(seed, 0.3);
  }
  EngineOptions options = TinyOptions();
  options.kv_budget_mb = 1;
  options.page_tokens = 4;
  options.max_batch = 80;
  options.prefill_tokens = 40;
  if (c.together == 1) options.stop = {"a", "mm"};
  options.steps_together = c.together;
  options.turns = c.turns;
  options.share_prefixes = options.share_answers = c.share;
  const LetterTokenizer tokenizer;
  Engine engine(weights[0].shape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  std::map<uint64_t, GenerateRequest> open;
  std::vector<EndedTurn> waiting;
  uint64_t next = 0, finished = 0, given_up = 0;
  int64_t version = 0;
  const auto collect = [&] {
    for (const GenerateResult& result : engine.TakeFinished()) {
      const GenerateRequest& asked = open.at(result.id);
      ASSERT_EQ(std::ssize(result.samples), asked.num_samples);
      for (const GeneratedSample& sample : result.samples) {
        ASSERT_NE(sample.finish, FinishReason::kAborted) << sample.reason;
        ASSERT_GE(sample.tokens.size(), 1u);
        ASSERT_LE(std::ssize(sample.tokens), asked.limit);
        ASSERT_EQ(sample.logprobs.size(), sample.tokens.size());
        ASSERT_TRUE(std::is_sorted(sample.versions.begin(), sample.versions.end()) || c.turns);
      }
      open.erase(result.id);
      ++finished;
    }
  };
  int32_t least_free = engine.num_pages();
  while (engine.counters().generated_tokens < wanted || !engine.idle()) {
    const bool more = engine.counters().generated_tokens < wanted;
    while (more && open.size() < 60) {
      const GenerateRequest request = Request(next++);
      open[request.id] = request;
      engine.Submit(request);
    }
    if (random_.NextBelow(500) == 0) ++version;
    engine.Step(weights[static_cast<size_t>(version % 2)], version);
    least_free = std::min(least_free, engine.free_pages());
    for (EndedTurn& turn : engine.TakeTurns()) waiting.push_back(std::move(turn));
    while (!waiting.empty() && (!more || waiting.size() > 10 || random_.NextBelow(3) == 0)) {
      const size_t at = random_.NextBelow(static_cast<uint32_t>(waiting.size()));
      Answer(engine, waiting[at]);
      waiting.erase(waiting.begin() + static_cast<ptrdiff_t>(at));
    }
    if (random_.NextBelow(50) == 0) {  // a client leaves
      auto at = open.begin();
      std::advance(at, random_.NextBelow(static_cast<uint32_t>(open.size() + 1)));
      if (at != open.end() && engine.Cancel(at->first)) {
        std::erase_if(waiting, [&](const EndedTurn& t) { return t.id == at->first; });
        open.erase(at);
        ++given_up;
      }
    }
    if (random_.NextBelow(100) == 0 && !engine.last_drawn().empty()) {
      const DrawnToken& token = engine.last_drawn().front();
      if (!token.ended) engine.End(token.id, token.sample);
    }
    if (random_.NextBelow(4000) == 0) {  // all of them leave
      for (const uint64_t id : engine.Abandon()) given_up += open.erase(id);
      waiting.clear();
      EXPECT_EQ(engine.free_pages(), engine.num_pages());
    }
    collect();
    if (HasFatalFailure()) return;
  }
  collect();
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(finished + given_up, next);
  EXPECT_EQ(engine.running(), 0);
  EXPECT_EQ(engine.unstarted(), 0);
  EXPECT_EQ(engine.free_pages(), engine.num_pages()) << "a page is lost";
  if (c.window == 0) {
    EXPECT_LT(least_free, engine.num_pages() / 10) << "pages were never scarce";
  }
  EXPECT_GT(given_up, wanted / 20'000);
  if (c.share) {
    EXPECT_GT(engine.counters().prefix_tokens_reused, wanted / 20);
  }
  std::printf(
      "[          ] %s: %llu tokens, %llu requests, %llu given up, %d of %d pages in use at "
      "the most, %llu prompt tokens shared\n",
      c.name, static_cast<unsigned long long>(engine.counters().generated_tokens),
      static_cast<unsigned long long>(next), static_cast<unsigned long long>(given_up),
      engine.num_pages() - least_free, engine.num_pages(),
      static_cast<unsigned long long>(engine.counters().prefix_tokens_reused));
  // What is kept for others goes with the weights.
  engine.Submit(Request(next));
  while (engine.Step(weights[0], version + 1)) {
    for (const EndedTurn& turn : engine.TakeTurns()) engine.End(turn.id, turn.sample);
  }
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
}

INSTANTIATE_TEST_SUITE_P(
    All, Soak,
    ::testing::Values(Case{.name = "Alone"},
                      Case{.name = "SharedWithTurns", .share = true, .turns = true},
                      Case{.name = "Sliding", .window = 9, .turns = true},
                      Case{.name = "Late", .share = true, .together = 3},
                      Case{.name = "Mixed", .window = 9, .mixed = true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace plumb::actor
