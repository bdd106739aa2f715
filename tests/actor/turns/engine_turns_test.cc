// Conversations in the engine: who else runs, how long an environment takes and how what it says is
// cut into chunks change nothing of a sample.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "actor/engine.h"
#include "actor/engine_impl.h"
#include "common/base/rng.h"
#include "common/record/kept_tokens.h"
#include "policy_model/packing.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;

EngineOptions TurnOptions() {
  EngineOptions o = TinyOptions();
  o.turns = true;
  // Of so small a model one token in sixty is the end: stop strings end turns soon.
  o.stop = {"a", "g", "m", "s", "y", "C"};
  return o;
}

// What stands behind turn `turn` of a sample: a function of nothing else.
std::vector<int32_t> Said(const EndedTurn& t) {
  RandomStream random(t.id * 131 + t.sample * 17 + static_cast<uint64_t>(t.turn), 77);
  std::vector<int32_t> tokens;
  for (uint32_t n = random.NextBelow(12); n > 0; --n)
    tokens.push_back(static_cast<int32_t>(random.NextBelow(52)));
  return tokens;
}

struct Conversed {
  Samples samples;
  EngineCounters counters;
  int most_waiting = 0;
};

// Each turn is answered after a random number of steps.
Conversed Converse(const EngineOptions& options, std::vector<GenerateRequest> requests,
                   uint64_t delays, const policy_model::Weights& weights = TinyWeights()) {
  const LetterTokenizer tokenizer;
  Engine engine(weights.shape(), Device::kCpu, weights.dtype(), options, &tokenizer);
  for (GenerateRequest& r : requests) engine.Submit(std::move(r));
  RandomStream random(delays, 5);
  std::vector<std::pair<uint32_t, EndedTurn>> waiting;
  Conversed run;
  for (int step = 0; !engine.idle(); ++step) {
    EXPECT_LT(step, 20000);
    engine.Step(weights, 0);
    for (EndedTurn& t : engine.TakeTurns())
      waiting.emplace_back(delays == 0 ? 0 : random.NextBelow(9), std::move(t));
    run.most_waiting = std::max(run.most_waiting, static_cast<int>(waiting.size()));
    for (auto at = waiting.begin(); at != waiting.end();) {
      if (at->first-- > 0) {
        ++at;
        continue;
      }
      const EndedTurn& t = at->second;
      std::vector<int32_t> said = Said(t);
      if (t.turn >= 3 || std::ssize(said) >= t.room) {
        said.resize(std::min(said.size(), static_cast<size_t>(t.room)));
        EXPECT_TRUE(engine.End(t.id, t.sample, FinishReason::kLength, "", said));
      } else {
        EXPECT_TRUE(engine.Continue(t.id, t.sample, said));
        EXPECT_FALSE(engine.Continue(t.id, t.sample, said)) << "it does not wait any more";
      }
      at = waiting.erase(at);
    }
  }
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) run.samples[{r.id, s.sample}] = std::move(s);
  }
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  run.counters = engine.counters();
  return run;
}

std::vector<GenerateRequest> TurnRequests(int count, bool openings = false) {
  std::vector<GenerateRequest> requests = MixedRequests(count);
  for (GenerateRequest& r : requests) {
    r.turns = true;
    r.limit = std::max(r.limit, 30);
    for (int32_t i = 0; openings && i < r.num_samples; ++i)
      r.openings.emplace_back(static_cast<size_t>(i), 7 + i);
  }
  return requests;
}

void ExpectSame(const Samples& a, const Samples& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [key, s] : a) {
    const GeneratedSample& t = b.at(key);
    EXPECT_EQ(s.tokens, t.tokens) << key.first << "/" << key.second;
    EXPECT_EQ(s.logprobs, t.logprobs) << key.first << "/" << key.second;
    EXPECT_EQ(s.versions, t.versions);
    EXPECT_EQ(s.segments, t.segments);
    EXPECT_EQ(s.finish, t.finish);
  }
}

TEST(EngineTurns, SegmentsSayWhoWroteWhat) {
  const Conversed run = Converse(TurnOptions(), TurnRequests(8), 0);
  int conversations = 0;
  for (const auto& [key, s] : run.samples) {
    int32_t at = 0;
    for (const Segment& segment : s.segments) {
      EXPECT_EQ(segment.begin, at);
      at = segment.end;
      for (int32_t i = segment.begin; i < segment.end; ++i) {
        const auto k = static_cast<size_t>(i);
        const bool policy = segment.origin == Origin::kPolicy;
        EXPECT_EQ(s.versions[k], policy ? 0 : -1);
        EXPECT_TRUE(policy ? s.logprobs[k] < 0 : s.logprobs[k] == 0);
      }
    }
    EXPECT_EQ(at, static_cast<int32_t>(s.tokens.size()));
    conversations += s.segments.size() > 2;
  }
  EXPECT_GT(conversations, 8);
  EXPECT_GT(run.counters.appended_tokens, 20u);
}

TEST(EngineTurns, ASampleDependsOnNothingButItself) {
  const std::vector<GenerateRequest> requests = TurnRequests(10, /*openings=*/true);
  const Conversed all = Converse(TurnOptions(), requests, 0);
  EXPECT_GT(all.most_waiting, 1);
  for (uint64_t delays = 1; delays <= 3; ++delays)
    ExpectSame(all.samples, Converse(TurnOptions(), requests, delays).samples);
  EngineOptions narrow = TurnOptions();
  narrow.max_batch = 2;
  narrow.prefill_tokens = 3;  // what is appended is computed in chunks
  ExpectSame(all.samples, Converse(narrow, requests, 4).samples);
  std::vector<GenerateRequest> turned(requests.rbegin(), requests.rend());
  ExpectSame(all.samples, Converse(TurnOptions(), turned, 5).samples);
}

// The learner computes the same log-probs over the whole sequence.
TEST(EngineTurns, LogprobsAreThoseOfTheSequence) {
  const policy_model::Weights weights = TinyWeights();
  const std::vector<GenerateRequest> requests = TurnRequests(6, true);
  const Conversed run = Converse(TurnOptions(), requests, 7, weights);
  policy_model::PackedBatch batch;
  batch.Clear();
  std::vector<float> sampled;
  for (const auto& [key, s] : run.samples) {
    std::vector<int32_t> tokens = requests[key.first].tokens;
    std::vector<uint8_t> mask(tokens.size(), 0);
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    for (size_t i = 0; i < s.tokens.size(); ++i) {
      mask.push_back(s.versions[i] >= 0);
      if (s.versions[i] >= 0) sampled.push_back(s.logprobs[i]);
    }
    batch.Append(tokens, mask, 0, {}, nullptr);
  }
  policy_model::Transformer model(weights.shape(), Device::kCpu, weights.dtype());
  std::vector<float> scored(sampled.size());
  model.Forward(weights, batch, {.entropy = false}, false, scored, {});
  for (size_t i = 0; i < scored.size(); ++i) EXPECT_NEAR(scored[i], sampled[i], 2e-4) << i;
}

TEST(EngineTurns, LayersThatSlideSeeTheSame) {
  policy_model::ModelShape shape = TinyShape();
  shape.family = "mistral";
  shape.window = 12;
  const policy_model::Weights weights = DrawWeights(shape, DType::kFloat32);
  const std::vector<GenerateRequest> requests = TurnRequests(8);
  EngineOptions keeps = TurnOptions();
  keeps.keep_all_pages = true;
  EngineOptions slides = TurnOptions();
  const Conversed kept = Converse(keeps, requests, 0, weights);
  ExpectSame(kept.samples, Converse(slides, requests, 3, weights).samples);
}

TEST(EngineTurns, KeptSetsCoverWhatTheEnvironmentSays) {
  EngineOptions options = TurnOptions();
  options.sampling.top_k = 4;
  options.record_kept = true;
  const Conversed run = Converse(options, TurnRequests(5), 2);
  for (const auto& [key, s] : run.samples) {
    KeptTokensReader sets(s.kept);
    for (const int64_t version : s.versions)
      EXPECT_EQ(CountKept(sets.Next()), version >= 0 ? 4 : 0);
    EXPECT_TRUE(sets.done());
  }
}

TEST(EngineTurns, OthersGoOnWhileOneWaits) {
  const LetterTokenizer tokenizer;
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TurnOptions();
  Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  for (GenerateRequest& r : TurnRequests(4)) engine.Submit(std::move(r));
  while (engine.Step(weights, 0)) {
  }
  EXPECT_TRUE(engine.blocked());
  EXPECT_FALSE(engine.idle());
  const std::vector<EndedTurn> turns = engine.TakeTurns();
  ASSERT_GT(turns.size(), 2u);
  EXPECT_FALSE(turns[0].tokens.empty());
  EXPECT_GT(engine.num_pages(), engine.free_pages()) << "those that wait keep their pages";
  EXPECT_TRUE(engine.Continue(turns[0].id, turns[0].sample, std::vector<int32_t>{3, 4}));
  EXPECT_FALSE(engine.blocked());
  EXPECT_TRUE(engine.Step(weights, 0));
  EXPECT_TRUE(engine.End(turns[1].id, turns[1].sample, FinishReason::kAborted, "it went away"));
  engine.Abandon();
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  EXPECT_TRUE(engine.TakeTurns().empty());
}

TEST(EngineTurns, AReasonIsTheEnvironmentsAndNotOneOfLogits) {
  const LetterTokenizer tokenizer;
  const policy_model::Weights weights = TinyWeights();
  Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, TurnOptions(), &tokenizer);
  GenerateRequest r = TurnRequests(1)[0];
  r.num_samples = 1;
  engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  const auto turns = engine.TakeTurns();
  ASSERT_EQ(turns.size(), 1u);
  EXPECT_TRUE(engine.End(r.id, 0, FinishReason::kAborted, "it went away"));
  const auto results = engine.TakeFinished();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].samples[0].reason, "it went away");
  EXPECT_EQ(results[0].samples[0].finish, FinishReason::kAborted);
  EXPECT_EQ(engine.counters().nonfinite_samples, 0u);
}

// A turn may be ended by whoever knows more than the stop rules; what was drawn is what it was.
TEST(EngineTurns, ATurnMayBeEndedBehindAnyToken) {
  const LetterTokenizer tokenizer;
  const policy_model::Weights weights = TinyWeights();
  EngineOptions options = TurnOptions();
  options.stop = {};
  options.eos = {};
  Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  GenerateRequest r = TurnRequests(1)[0];
  r.num_samples = 1;
  r.limit = 20;
  engine.Submit(r);
  EXPECT_FALSE(engine.EndTurn(r.id, 0)) << "it has no slot yet";
  std::vector<int32_t> drawn;
  const auto step = [&] {
    EXPECT_TRUE(engine.Step(weights, 0));
    for (const DrawnToken& d : engine.last_drawn()) drawn.push_back(d.token);
  };
  while (drawn.size() < 3) step();
  EXPECT_TRUE(engine.EndTurn(r.id, 0));
  EXPECT_FALSE(engine.EndTurn(r.id, 0)) << "it waits";
  const auto turns = engine.TakeTurns();
  ASSERT_EQ(turns.size(), 1u);
  EXPECT_EQ(turns[0].tokens, drawn);
  EXPECT_EQ(turns[0].room, 17);
  const std::vector<int32_t> said = {1, 2, 3};
  EXPECT_TRUE(engine.Continue(r.id, 0, said));
  EXPECT_FALSE(engine.EndTurn(r.id, 0)) << "nothing is drawn of the next turn";
  while (drawn.size() < 5) step();
  EXPECT_TRUE(engine.EndTurn(r.id, 0));
  EXPECT_TRUE(engine.End(r.id, 0));
  const GeneratedSample sample = engine.TakeFinished().at(0).samples.at(0);
  drawn.insert(drawn.begin() + 3, said.begin(), said.end());
  EXPECT_EQ(sample.tokens, drawn);
  EXPECT_EQ(sample.segments,
            (std::vector<Segment>{
                {Origin::kPolicy, 0, 3}, {Origin::kEnvironment, 3, 6}, {Origin::kPolicy, 6, 8}}));
}

}  // namespace
}  // namespace plumb::actor
