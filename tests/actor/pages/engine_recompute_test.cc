// New weights while answers are at work, with what was computed before computed again: every token
// is that of an engine that had its weights from the start and was given the same tokens before it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "actor/engine.h"
#include "actor/rollout.h"
#include "common/base/rng.h"
#include "policy_model/families/experts/expert_form.h"
#include "policy_model/transformer.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using policy_model::ModelShape;
using policy_model::Weights;

// Version v of a policy.
std::vector<Weights> Versions(const ModelShape& shape, int count) {
  policy_model::SetThreads(1);
  std::vector<Weights> versions;
  for (int v = 0; v < count; ++v) {
    versions.emplace_back(shape, Device::kCpu, DType::kFloat32);
    versions.back().Initialise(static_cast<uint64_t>(3 + v), 0.15);
  }
  return versions;
}

EngineOptions Recomputing() {
  EngineOptions o = TinyOptions();
  o.recompute_after_update = true;
  o.eos = {};  // when a sample ends does not hang on what it draws, nor on whose processor draws it
  return o;
}

struct Compared {
  int pieces = 0, crossed = 0;  // tokens of one version; of those, not the answer's first
  int other = 0;                // that are not what the weights alone give
};

// Each run of tokens that one version drew, against an engine with these weights that is given
// everything before it as a prompt.
Compared Compare(const std::vector<Weights>& versions,
                 const std::map<uint64_t, GenerateRequest>& asked, const Samples& samples) {
  Compared out;
  EngineOptions options = TinyOptions();
  options.max_batch = 1;
  options.eos = {};
  std::vector<std::unique_ptr<Engine>> engines;
  for (const Weights& w : versions)
    engines.push_back(std::make_unique<Engine>(w.shape(), Device::kCpu, DType::kFloat32, options));
  for (const auto& [key, s] : samples) {
    const GenerateRequest& request = asked.at(key.first);
    for (size_t b = 0, e = 0; b < s.tokens.size(); b = e) {
      for (e = b; e < s.tokens.size() && s.versions[e] == s.versions[b];) ++e;
      if (s.versions[b] < 0) continue;
      const auto v = static_cast<size_t>(s.versions[b]);
      GenerateRequest one = request;
      one.turns = false;
      one.openings = {};
      one.num_samples = 1;
      one.first_sample = key.second;
      one.limit = static_cast<int32_t>(e - b);
      one.tokens.insert(one.tokens.end(), s.tokens.begin(),
                        s.tokens.begin() + static_cast<ptrdiff_t>(b));
      engines[v]->Submit(one);
      while (engines[v]->Step(versions[v], 0)) {
      }
      const GeneratedSample want = engines[v]->TakeFinished().at(0).samples.at(0);
      ++out.pieces;
      out.crossed += b > 0 && s.versions[b - 1] >= 0;
      out.other += !std::equal(want.tokens.begin(), want.tokens.end(),
                               s.tokens.begin() + static_cast<ptrdiff_t>(b)) ||
                   !std::equal(want.logprobs.begin(), want.logprobs.end(),
                               s.logprobs.begin() + static_cast<ptrdiff_t>(b));
    }
  }
  return out;
}

struct Updated {
  std::map<uint64_t, GenerateRequest> asked;
  Samples samples;
  EngineCounters counters;
};

// A request every other step, other weights every `each` steps. `meanwhile` is called behind each.
Updated Generate(const EngineOptions& options, const std::vector<Weights>& versions,
                 const std::vector<GenerateRequest>& requests, int each,
                 const std::function<void(Engine&, int)>& meanwhile = {}) {
  Engine engine(versions[0].shape(), Device::kCpu, DType::kFloat32, options);
  const int32_t pages = engine.num_pages();
  Updated out;
  size_t next = 0;
  for (int step = 0; next < requests.size() || !engine.idle(); ++step) {
    EXPECT_LT(step, 20000);
    if (next < requests.size() && step % 2 == 0) {
      out.asked[requests[next].id] = requests[next];
      engine.Submit(requests[next++]);
    }
    const auto v = std::min(static_cast<size_t>(step / each), versions.size() - 1);
    EXPECT_TRUE(engine.Step(versions[v], static_cast<int64_t>(v)));
    if (meanwhile) meanwhile(engine, step);
    Collect(engine, out.samples);
  }
  EXPECT_EQ(engine.free_pages(), pages);
  out.counters = engine.counters();
  return out;
}

TEST(EngineRecompute, TokensAreThoseOfTheirWeightsAloneAndWithKeptKeysTheyAreNot) {
  const std::vector<Weights> versions = Versions(TinyShape(), 4);
  for (const int32_t max_batch : {3, 16}) {
    for (const int32_t prefill_tokens : {5, 64}) {
      EngineOptions options = Recomputing();
      options.max_batch = max_batch;
      options.prefill_tokens = prefill_tokens;
      const int each = max_batch == 3 ? 60 : 17;
      const Updated run = Generate(options, versions, MixedRequests(14), each);
      const Compared compared = Compare(versions, run.asked, run.samples);
      EXPECT_EQ(compared.other, 0) << max_batch << ", chunks of " << prefill_tokens;
      EXPECT_GE(compared.crossed, 3);
      EXPECT_GT(run.counters.recomputed_tokens, 200u);
      options.recompute_after_update = false;
      const Updated kept = Generate(options, versions, MixedRequests(14), each);
      EXPECT_EQ(kept.counters.recomputed_tokens, 0u);
      EXPECT_GE(Compare(versions, kept.asked, kept.samples).other, 3);
    }
  }
}

TEST(EngineRecompute, APromptIsComputedAgainOnceForItsGroup) {
  const std::vector<Weights> versions = Versions(TinyShape(), 2);
  EngineOptions options = Recomputing();
  options.eos = {};
  Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, options);
  GenerateRequest r;
  for (int32_t i = 0; i < 30; ++i) r.tokens.push_back(1 + i);
  r.num_samples = 5;
  r.limit = 20;
  engine.Submit(r);
  const auto drawn = [&](int64_t v) {
    EXPECT_TRUE(engine.Step(versions[static_cast<size_t>(v)], v));
    return engine.last_drawn().size();
  };
  EXPECT_EQ(drawn(0), 0u) << "the prompt";
  for (int i = 0; i < 6; ++i) EXPECT_EQ(drawn(0), 5u);
  const int32_t held = engine.free_pages();
  EXPECT_EQ(drawn(1), 0u) << "the prompt again, and";
  EXPECT_EQ(engine.counters().recomputed_tokens, 29u);
  EXPECT_FALSE(engine.blocked());
  EXPECT_EQ(drawn(1), 0u) << "what each has drawn, the prompt's last token and all but the newest";
  EXPECT_EQ(engine.counters().recomputed_tokens, 29u + 5 * 6);
  EXPECT_EQ(drawn(1), 5u);
  EXPECT_EQ(engine.free_pages(), held) << "in place";
  while (engine.Step(versions[1], 1)) {
  }
  EXPECT_EQ(engine.counters().recomputed_tokens, 29u + 5 * 6) << "the same weights";
  EXPECT_EQ(engine.counters().prefill_tokens, 29u);
  const std::vector<GenerateResult> results = engine.TakeFinished();
  for (const GeneratedSample& s : results.at(0).samples) {
    EXPECT_EQ(std::count(s.versions.begin(), s.versions.end(), 0), 6);
    EXPECT_EQ(std::count(s.versions.begin(), s.versions.end(), 1), 14);
  }
}

// Prompts that begin alike, of groups of several, in few pages and many, and answers that are
// known.
TEST(EngineRecompute, WhatPromptsShareIsComputedAgainOnce) {
  const std::vector<Weights> versions = Versions(TinyShape(), 3);
  std::vector<GenerateRequest> requests = MixedRequests(12);
  for (GenerateRequest& r : requests) {
    r.limit = 40;
    std::vector<int32_t> beginning(static_cast<size_t>(24 + r.id % 3 * 8), 9);
    r.tokens.insert(r.tokens.begin(), beginning.begin(), beginning.end());
  }
  uint64_t recomputed[2];
  for (const bool share : {false, true}) {
    EngineOptions options = Recomputing();
    options.eos = {};
    options.max_batch = 40;
    options.share_prefixes = options.share_answers = share;
    const Updated run = Generate(options, versions, requests, 40);
    const Compared compared = Compare(versions, run.asked, run.samples);
    EXPECT_EQ(compared.other, 0);
    EXPECT_GE(compared.crossed, 10);
    recomputed[share ? 1 : 0] = run.counters.recomputed_tokens;
    EXPECT_EQ(run.counters.prefix_tokens_reused > 100, share);
  }
  // 24 tokens at least of eleven groups.
  EXPECT_LE(recomputed[1] + 11 * 24, recomputed[0]);
}

TEST(EngineRecompute, TheNextWeightsMayComeBeforeItIsDone) {
  const std::vector<Weights> versions = Versions(TinyShape(), 12);
  EngineOptions options = Recomputing();
  options.prefill_tokens = 20;
  options.share_prefixes = true;
  const Updated run = Generate(options, versions, MixedRequests(12), 4);
  EXPECT_EQ(Compare(versions, run.asked, run.samples).other, 0);
}

// Who leaves takes nothing along that others still need, in whichever step.
TEST(EngineRecompute, AnswersThatAreGivenUpLeaveTheOthersAsTheyAre) {
  const std::vector<Weights> versions = Versions(TinyShape(), 5);
  std::vector<GenerateRequest> requests = MixedRequests(16);
  for (GenerateRequest& r : requests) {
    r.num_samples = 3;
    r.tokens.insert(r.tokens.begin(), 20, 4);  // they share
  }
  int crossed = 0;
  for (const uint64_t seed : {1, 2, 3, 4}) {
    RandomStream random(seed, 6);
    EngineOptions options = Recomputing();
    options.prefill_tokens = 9;
    options.share_prefixes = seed % 2 == 0;
    size_t cancelled = 0;
    const Updated run = Generate(options, versions, requests, 13, [&](Engine& engine, int step) {
      if (step % 13 > 5) return;
      const uint64_t id = random.NextBelow(16);
      if (random.NextBelow(3) == 0) cancelled += engine.Cancel(id);
      else engine.End(id, random.NextBelow(3));  // of three the first, often
    });
    EXPECT_GT(cancelled, 0u);
    const Compared compared = Compare(versions, run.asked, run.samples);
    EXPECT_EQ(compared.other, 0) << "seed " << seed;
    crossed += compared.crossed;
  }
  EXPECT_GT(crossed, 8);
}

// Updates come while environments are asked, and what they say while keys are computed again.
TEST(EngineRecompute, ConversationsThatWaitAreComputedAgainAndGoOn) {
  const std::vector<Weights> versions = Versions(TinyShape(), 6);
  const LetterTokenizer tokenizer;
  for (const int32_t prefill_tokens : {4, 64}) {
    EngineOptions options = Recomputing();
    options.turns = true;
    options.stop = {"a", "g", "m", "s", "y", "C"};
    options.prefill_tokens = prefill_tokens;
    Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
    Updated run;
    for (GenerateRequest& r : MixedRequests(10)) {
      r.turns = true;
      r.limit = std::max(r.limit, 40);
      for (int32_t i = 0; i < r.num_samples; ++i)
        r.openings.emplace_back(static_cast<size_t>(i), 7 + i);
      run.asked[r.id] = r;
      engine.Submit(r);
    }
    RandomStream random(3, 8);
    std::vector<std::pair<uint32_t, EndedTurn>> waiting;
    for (int step = 0; !engine.idle(); ++step) {
      ASSERT_LT(step, 20000);
      const auto v = std::min(static_cast<size_t>(step / 12), versions.size() - 1);
      engine.Step(versions[v], static_cast<int64_t>(v));
      for (EndedTurn& t : engine.TakeTurns()) waiting.emplace_back(random.NextBelow(30), t);
      std::erase_if(waiting, [&](auto& late) {
        if (late.first-- > 0) return false;
        const EndedTurn& t = late.second;
        const std::vector<int32_t> said(random.NextBelow(4), 5);
        const bool ends = t.turn >= 4 || std::ssize(said) >= t.room;
        EXPECT_TRUE(ends ? engine.End(t.id, t.sample) : engine.Continue(t.id, t.sample, said));
        return true;
      });
    }
    Collect(engine, run.samples);
    EXPECT_EQ(engine.free_pages(), engine.num_pages());
    EXPECT_GT(engine.counters().recomputed_tokens, 200u);
    const Compared compared = Compare(versions, run.asked, run.samples);
    EXPECT_EQ(compared.other, 0) << "chunks of " << prefill_tokens;
    EXPECT_GT(compared.pieces, 20);
  }
}

TEST(EngineRecompute, StatesBeginAnew) {
  ModelShape shape = TinyShape();
  shape.family = "qwen3_5_text";
  shape.layers = 4;
  shape.rotated_share = 0.5;
  shape.attention_gate = true;
  shape.hybrid = {
      .layers = {1, 1, 0, 1}, .taps = 4, .k_heads = 2, .v_heads = 4, .k_dim = 12, .v_dim = 10};
  const std::vector<Weights> versions = Versions(shape, 4);
  for (const int32_t prefill_tokens : {6, 64}) {
    EngineOptions options = Recomputing();
    options.prefill_tokens = prefill_tokens;
    RandomStream random(4, 4);
    const Updated run =
        Generate(options, versions, MixedRequests(10), 15, [&](Engine& engine, int step) {
          // Also where the row that a prompt goes through is given up on its way.
          if (step % 15 < 4) engine.End(random.NextBelow(10), 0);
        });
    const Compared compared = Compare(versions, run.asked, run.samples);
    EXPECT_EQ(compared.other, 0) << "chunks of " << prefill_tokens;
    EXPECT_GE(compared.crossed, 5);
  }
}

TEST(EngineRecompute, SlidingLayersKeepTheirFirstPages) {
  for (const char* family : {"mistral", "gemma3_text"}) {
    ModelShape shape = TinyShape();
    shape.family = family;
    shape.window = 11;
    if (family == std::string("gemma3_text")) {
      shape.sliding = {1, 0};
      shape.local_rope_theta = 10000;
    }
    const std::vector<Weights> versions = Versions(shape, 3);
    EngineOptions options = Recomputing();
    options.page_tokens = 8;
    const Updated run = Generate(options, versions, MixedRequests(8), 20);
    const Compared compared = Compare(versions, run.asked, run.samples);
    EXPECT_EQ(compared.other, 0) << family;
    EXPECT_GE(compared.crossed, 5) << family;
  }
}

// What the learner sends tokens to is what the newest weights have chosen for all of them.
TEST(EngineRecompute, ExpertsAreThoseOfTheNewestWeights) {
  ModelShape shape = TinyShape();
  shape.family = "plumb";
  shape.layers = 3;
  shape.experts = {.count = 16, .widths = {48}, .per_token = 2, .dense = {1, 0, 0}};
  const std::vector<Weights> versions = Versions(shape, 2);
  EngineOptions options = Recomputing();
  options.record_experts = true;
  options.prefill_tokens = 7;
  const Updated run = Generate(options, versions, MixedRequests(8), 30);
  const ExpertForm form = policy_model::ExpertFormOf(shape);
  policy_model::Transformer model(shape, Device::kCpu, DType::kFloat32);
  int crossed = 0;
  for (const auto& [key, s] : run.samples) {
    if (s.versions.empty() || s.versions.back() != 1) continue;
    crossed += s.versions.front() == 0;
    std::vector<int32_t> tokens = run.asked.at(key.first).tokens;
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    ASSERT_EQ(s.experts.tokens() + 1, tokens.size());
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    std::vector<float> logprob(batch.rows.size());
    model.Forward(versions[1], batch, {.entropy = false}, false, logprob, {});
    std::vector<int32_t> taken(form.numbers());
    for (size_t t = 0; t + 1 < tokens.size(); ++t) {
      UnpackExperts(form, s.experts.of(t), taken);
      const auto want = model.experts().subspan(t * form.numbers(), form.numbers());
      ASSERT_TRUE(std::equal(taken.begin(), taken.end(), want.begin())) << "token " << t;
    }
  }
  EXPECT_GE(crossed, 3);
}

class OneLease : public PromptSource {
 public:
  std::vector<PromptLease> Lease(int, Deadline) override { return std::exchange(leases, {}); }
  void Release(std::span<const PromptLease>) override {}
  bool Finished() override { return leases.empty(); }
  std::vector<PromptLease> leases;
};

// Partial rollouts: an actor's groups go on under the version that comes meanwhile.
TEST(EngineRecompute, AnActorsGroupsGoOnUnderNewWeights) {
  const std::vector<Weights> versions = Versions(TinyShape(), 2);
  class Newest : public Policy {
   public:
    explicit Newest(const std::vector<Weights>& all) : all_(all) {}
    PolicyVersion current() const override { return {at, "digest"}; }
    int64_t version() const override { return at; }
    const Weights& weights() const override { return all_[static_cast<size_t>(at)]; }
    bool Update(int64_t, Deadline) override { return true; }
    int64_t at = 0;

   private:
    const std::vector<Weights>& all_;
  } policy(versions);
  OneLease source;
  PromptLease lease;
  lease.lease_id = 5;
  lease.num_samples = 3;
  lease.policy_version = -1;
  lease.prompt.text = "a prompt of some letters";
  source.leases = {lease};
  RolloutOptions options;
  options.engine = Recomputing();
  options.engine.eos = {};
  options.poll_ms = 0;
  const LetterTokenizer tokenizer;
  std::vector<TrajectoryGroup> groups;
  Rollout rollout(TinyShape(), Device::kCpu, DType::kFloat32, options, &source, &policy, &tokenizer,
                  nullptr, [&](const TrajectoryGroup& g) { groups.push_back(g); });
  for (int i = 0; i < 10; ++i) rollout.Pump(Deadline{});
  policy.at = 1;
  while (rollout.Pump(After(std::chrono::milliseconds(200)))) {
  }
  ASSERT_EQ(groups.size(), 1u);
  Updated run;
  GenerateRequest& asked = run.asked[0];
  asked.tokens = tokenizer.Encode(lease.prompt.text, false);
  asked.prompt_key = RandomAddress(Purpose::kTrain, lease.lease_id);
  for (const Trajectory& t : groups[0].trajectories) {
    const auto p = static_cast<ptrdiff_t>(t.prompt_length());
    GeneratedSample& s = run.samples[{0, t.sample}];
    s.tokens.assign(t.tokens.begin() + p, t.tokens.end());
    s.logprobs.assign(t.logprobs.begin() + p, t.logprobs.end());
    s.versions.assign(t.policy_versions.begin() + p, t.policy_versions.end());
    EXPECT_EQ(s.versions.front(), 0);
    EXPECT_EQ(s.versions.back(), 1);
  }
  const Compared compared = Compare(versions, run.asked, run.samples);
  EXPECT_EQ(compared.crossed, 3);
  EXPECT_EQ(compared.other, 0);
  EXPECT_GT(rollout.engine().counters().recomputed_tokens, 20u);
}

}  // namespace
}  // namespace plumb::actor
