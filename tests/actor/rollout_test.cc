#include "actor/rollout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>

#include "common/base/error.h"
#include "common/record/kept_tokens.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

class FakePrompts : public PromptSource {
 public:
  std::vector<PromptLease> Lease(int max_groups, Deadline) override {
    if (away-- > 0)
      throw Error(away % 2 ? ErrorCode::kUnavailable : ErrorCode::kNoSpace,
                  "the store is away, or full");
    std::vector<PromptLease> out;
    while (!queue.empty() && static_cast<int>(out.size()) < std::min(max_groups, most)) {
      out.push_back(queue.front());
      queue.pop_front();
    }
    return out;
  }
  void Release(std::span<const PromptLease> leases) override {
    if (release_away-- > 0) throw Error(ErrorCode::kDeadline, "the store does not answer");
    released.insert(released.end(), leases.begin(), leases.end());
  }
  void Renew() override { ++renewals; }
  bool Finished() override { return queue.empty() && finish; }

  std::deque<PromptLease> queue;
  std::vector<PromptLease> released;
  int most = 1000, away = 0, release_away = 0, renewals = 0;
  bool finish = true;
};

PromptLease MakeLease(uint64_t id, int64_t version, int32_t samples = 3) {
  PromptLease lease;
  lease.lease_id = id;
  lease.num_samples = samples;
  lease.policy_version = version;
  lease.prompt.text = "prompt number " + std::string(1, static_cast<char>('a' + id % 26));
  return lease;
}

// The learner's side: one Weights object and its version.
struct Bench {
  Bench() { options.engine = TinyOptions(), options.run_id = "run-7", options.actor = "actor-3"; }

  Rollout& Make(const ChatTemplate* chat = nullptr) {
    rollout = std::make_unique<Rollout>(
        TinyShape(), Device::kCpu, DType::kFloat32, options, &prompts, &policy, &tokenizer, chat,
        [this](const TrajectoryGroup& group) {
          if (sink_away-- > 0) throw Error(ErrorCode::kUnavailable, "reward is away");
          CheckInvariants(group);
          EXPECT_TRUE(groups.emplace(group.lease.lease_id, group).second);
        },
        surroundings);
    return *rollout;
  }
  void Drain() {
    int pumps = 0;
    while (rollout->Pump(After(milliseconds(200)))) ASSERT_LT(++pumps, 2000);
  }

  RolloutOptions options;
  Surroundings surroundings;
  policy_model::Weights weights = TinyWeights();
  PolicyVersion version{0, "digest-0"};
  SharedPolicy policy{&weights, [this] { return version; }, [this] { return version.version; }};
  FakePrompts prompts;
  LetterTokenizer tokenizer;
  int sink_away = 0;
  std::map<uint64_t, TrajectoryGroup> groups;
  std::unique_ptr<Rollout> rollout;
};

TEST(Rollout, LeasesBecomeCompleteGroups) {
  Bench b;
  for (uint64_t i = 0; i < 9; ++i) b.prompts.queue.push_back(MakeLease(i, 0));
  b.prompts.most = 2;
  Rollout& rollout = b.Make();
  b.Drain();
  ASSERT_EQ(b.groups.size(), 9u);
  for (const auto& [id, g] : b.groups) {
    EXPECT_EQ(g.run_id, "run-7");
    EXPECT_EQ(g.actor, "actor-3");
    EXPECT_EQ(g.policy, b.version);
    EXPECT_EQ(g.lease.prompt.tokens, b.tokenizer.Encode(g.lease.prompt.text, true));
    ASSERT_EQ(g.trajectories.size(), 3u);
    for (const Trajectory& t : g.trajectories) {
      const size_t p = g.lease.prompt.tokens.size();
      ASSERT_EQ(t.segments.size(), 2u);
      EXPECT_EQ(t.prompt_length(), static_cast<int32_t>(p));
      EXPECT_GT(t.completion_length(), 0);
      EXPECT_TRUE(
          std::equal(g.lease.prompt.tokens.begin(), g.lease.prompt.tokens.end(), t.tokens.begin()));
      EXPECT_EQ(std::count(t.loss_mask.begin(), t.loss_mask.end(), 1), t.completion_length());
      EXPECT_LT(*std::min_element(t.logprobs.begin(), t.logprobs.end()), 0);
      EXPECT_EQ(t.completion,
                b.tokenizer.Decode(std::span<const int32_t>(t.tokens).subspan(p), false));
      EXPECT_EQ(t.finish == FinishReason::kStop, t.tokens.back() == 60);
      EXPECT_FALSE(t.scored);
    }
  }
  EXPECT_EQ(rollout.counters().leases, 9u);
  EXPECT_EQ(rollout.counters().groups_delivered, 9u);
  EXPECT_GT(rollout.engine().counters().generated_tokens, 100u);
  EXPECT_TRUE(b.prompts.released.empty());
}

TEST(Rollout, TheSameLeaseGivesTheSameGroupWhateverTheActor) {
  Bench one, other;
  for (uint64_t i = 0; i < 8; ++i) one.prompts.queue.push_back(MakeLease(i, 0));
  for (uint64_t i = 8; i-- > 0;) other.prompts.queue.push_back(MakeLease(i, 0));
  other.options.engine.max_batch = 2;
  other.prompts.most = 1;
  one.Make();
  other.Make();
  one.Drain();
  other.Drain();
  EXPECT_EQ(one.groups, other.groups);
}

TEST(Rollout, TrainAndEvalOfOneNumberDrawDifferently) {
  Bench train, eval;
  train.prompts.queue.push_back(MakeLease(3, 0));
  eval.prompts.queue.push_back(MakeLease(3, 0));
  eval.prompts.queue.back().purpose = Purpose::kEval;
  train.Make();
  eval.Make();
  train.Drain();
  eval.Drain();
  EXPECT_NE(train.groups.at(3).trajectories[0].tokens, eval.groups.at(3).trajectories[0].tokens);
  EXPECT_EQ(eval.groups.at(3).lease.purpose, Purpose::kEval);
}

TEST(Rollout, WhatFiltersKeptIsRecordedForWhoTrains) {
  Bench b;
  b.options.engine.sampling.top_k = 3;
  b.options.engine.record_kept = true;
  b.prompts.queue = {MakeLease(0, 0), MakeLease(1, 0)};
  b.prompts.queue.back().purpose = Purpose::kEval;
  b.Make();
  b.Drain();
  for (const Trajectory& t : b.groups.at(0).trajectories) {
    KeptTokensReader sets(t.kept);
    for (int32_t i = 0; i < static_cast<int32_t>(t.tokens.size()); ++i) {
      EXPECT_EQ(CountKept(sets.Next()), i < t.prompt_length() ? 0 : 3) << i;
    }
    EXPECT_TRUE(sets.done());
  }
  for (const Trajectory& t : b.groups.at(1).trajectories) EXPECT_TRUE(t.kept.empty());
}

TEST(Rollout, SyncWaitsForTheExactVersion) {
  Bench b;
  b.version = {1, "one"};
  b.prompts.queue = {MakeLease(0, 2), MakeLease(1, 2)};
  Rollout& rollout = b.Make();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(rollout.Pump(After(milliseconds(5))));
  EXPECT_EQ(rollout.engine().counters().steps, 0u) << "sampled with the wrong version";
  EXPECT_EQ(rollout.in_flight(), 2u);
  b.version = {2, "two"};
  b.Drain();
  ASSERT_EQ(b.groups.size(), 2u);
  for (const auto& [id, g] : b.groups) {
    EXPECT_EQ(g.policy, b.version);
    for (const Trajectory& t : g.trajectories) {
      for (size_t i = static_cast<size_t>(t.prompt_length()); i < t.tokens.size(); ++i)
        EXPECT_EQ(t.policy_versions[i], 2);
    }
  }
}

TEST(Rollout, LeasesOfTheNextVersionWaitUntilThoseOfThisOneAreDone) {
  Bench b;
  b.prompts.queue = {MakeLease(0, 0), MakeLease(1, 0), MakeLease(2, 1)};
  Rollout& rollout = b.Make();
  int pumps = 0;
  while (b.groups.size() < 2) {
    ASSERT_TRUE(rollout.Pump(Deadline{}));
    ASSERT_LT(++pumps, 1000);
  }
  EXPECT_FALSE(b.groups.contains(2));
  b.version = {1, "one"};
  b.Drain();
  EXPECT_EQ(b.groups.at(2).policy.version, 1);
  EXPECT_EQ(b.groups.at(1).policy.version, 0);
}

TEST(Rollout, WeightsThatChangeUnderAnExactLeaseAreAnError) {
  Bench b;
  b.prompts.queue = {MakeLease(0, 0)};
  Rollout& rollout = b.Make();
  rollout.Pump(Deadline{});
  b.version = {1, "one"};
  EXPECT_THROW(rollout.Pump(After(milliseconds(50))), Error);
}

TEST(Rollout, ALeaseOfAPastVersionIsGivenBackAndCounted) {
  Bench b;
  b.version = {5, "five"};
  b.prompts.queue = {MakeLease(0, 4), MakeLease(1, 5)};
  Rollout& rollout = b.Make();
  b.Drain();
  ASSERT_EQ(b.prompts.released.size(), 1u);
  EXPECT_EQ(b.prompts.released[0].lease_id, 0u);
  EXPECT_EQ(rollout.counters().stale_leases, 1u);
  EXPECT_EQ(b.groups.size(), 1u);
}

TEST(Rollout, WithoutAVersionTheNewestIsTakenAndStamped) {
  Bench b;
  b.options.engine.eos = {};
  b.options.poll_ms = 0;
  b.prompts.queue = {MakeLease(0, -1)};
  Rollout& rollout = b.Make();
  for (int i = 0; i < 10; ++i) rollout.Pump(Deadline{});
  b.version = {1, "one"};
  b.Drain();
  const TrajectoryGroup& g = b.groups.at(0);
  EXPECT_EQ(g.policy, b.version);
  const Trajectory& t = g.trajectories[0];
  EXPECT_EQ(t.policy_versions[static_cast<size_t>(t.prompt_length())], 0);
  EXPECT_EQ(t.policy_versions.back(), 1);
}

TEST(Rollout, OverlongAndUnreadablePromptsComeBackAborted) {
  Bench b;
  b.prompts.queue = {MakeLease(0, 0), MakeLease(1, 0), MakeLease(2, 0)};
  b.prompts.queue[0].prompt.tokens.assign(150, 1);
  b.prompts.queue[1].prompt.text.clear();
  b.prompts.queue[1].prompt.messages = {{"user", "hello"}};
  Rollout& rollout = b.Make();
  b.Drain();
  ASSERT_EQ(b.groups.size(), 3u);
  for (const uint64_t id : {0, 1}) {
    ASSERT_EQ(b.groups.at(id).trajectories.size(), 3u);
    for (const Trajectory& t : b.groups.at(id).trajectories) {
      EXPECT_EQ(t.finish, FinishReason::kAborted);
      EXPECT_EQ(t.completion_length(), 0);
    }
  }
  EXPECT_NE(b.groups.at(0).trajectories[0].unscored_reason.find("max_positions"),
            std::string::npos);
  EXPECT_NE(b.groups.at(1).trajectories[0].unscored_reason.find("chat template"),
            std::string::npos);
  EXPECT_EQ(rollout.counters().refused_prompts, 1u);
  EXPECT_EQ(rollout.counters().untokenizable, 1u);
}

// "[role]content" for each message, then "[assistant]".
class PlainTemplate : public ChatTemplate {
 public:
  std::string Render(std::span<const Message> messages, bool add_generation_prompt,
                     std::string_view) const override {
    std::string text;
    for (const Message& m : messages) text += m.role + m.content;
    return add_generation_prompt ? text + "assistant" : text;
  }
  const std::string& source() const override { return source_; }

 private:
  std::string source_;
};

TEST(Rollout, MessagesGoThroughTheChatTemplateOnce) {
  Bench b;
  const PlainTemplate chat;
  b.prompts.queue = {MakeLease(0, 0)};
  b.prompts.queue[0].prompt.text.clear();
  b.prompts.queue[0].prompt.messages = {{"user", "hello"}};
  b.Make(&chat);
  b.Drain();
  EXPECT_EQ(b.groups.at(0).lease.prompt.tokens, b.tokenizer.Encode("userhelloassistant", true));
}

TEST(Rollout, AGroupIsKeptUntilTheSinkHasIt) {
  Bench b;
  for (uint64_t i = 0; i < 4; ++i) b.prompts.queue.push_back(MakeLease(i, 0));
  b.sink_away = 3;
  b.prompts.away = 2;
  Rollout& rollout = b.Make();
  b.Drain();
  EXPECT_EQ(b.groups.size(), 4u);
  EXPECT_EQ(rollout.counters().port_retries, 5u);
}

// Between two tokens only a number is asked for: the whole policy carries a digest, which is a lock
// and an allocation each time.
TEST(Rollout, ADecodeStepAsksForTheNumberOfTheWeightsOnly) {
  Bench b;
  int whole = 0;
  SharedPolicy policy(
      &b.weights, [&] { return ++whole, b.version; }, [&] { return b.version.version; });
  b.prompts.queue.push_back(MakeLease(0, 0));
  b.prompts.finish = false;
  Rollout rollout(TinyShape(), Device::kCpu, DType::kFloat32, b.options, &b.prompts, &policy,
                  &b.tokenizer, nullptr, [](const TrajectoryGroup&) {});
  while (rollout.engine().counters().generated_tokens == 0) rollout.Pump(Deadline{});
  const int before = whole;
  const uint64_t tokens = rollout.engine().counters().generated_tokens;
  while (rollout.in_flight() > 0 && rollout.engine().counters().generated_tokens < tokens + 9)
    rollout.Pump(Deadline{});
  EXPECT_GT(rollout.engine().counters().generated_tokens, tokens);
  EXPECT_LE(whole, before + (rollout.in_flight() == 0 ? 1 : 0)) << "once for a group that is done";
}

// However long an answer takes, the store hears that somebody works on it; the sink that takes
// nothing counts as work too.
TEST(Rollout, RenewsWhatItHolds) {
  Bench b;
  b.options.renew_ms = 1;
  b.sink_away = 5;
  b.prompts.queue.push_back(MakeLease(0, 0));
  Rollout& rollout = b.Make();
  int pumps = 0;
  while (rollout.counters().port_retries < 5) {
    ASSERT_LT(++pumps, 2000);
    rollout.Pump(After(milliseconds(2)));
  }
  EXPECT_GE(b.prompts.renewals, 5);
  b.Drain();
  EXPECT_EQ(b.groups.size(), 1u);
  const int before = b.prompts.renewals;
  Bench rarely;
  rarely.prompts.queue.push_back(MakeLease(0, 0));
  rarely.Make();
  rarely.Drain();
  EXPECT_EQ(rarely.prompts.renewals, 1);
  EXPECT_GT(before, 1);
}

// What was given back while the store was away reaches it later: an actor that goes on renewing
// would keep it from everybody.
TEST(Rollout, ALeaseThatIsGivenBackIsGivenBackInTheEnd) {
  Bench b;
  b.version = {5, "digest-5"};
  b.prompts.release_away = 1;  // it is tried again after five seconds, or at the end
  b.prompts.finish = false;
  b.prompts.queue.push_back(MakeLease(0, 4));  // past
  Rollout& rollout = b.Make();
  rollout.Pump(Deadline{});
  EXPECT_TRUE(b.prompts.released.empty());
  EXPECT_EQ(rollout.counters().port_retries, 1u);
  rollout.Stop();
  ASSERT_EQ(b.prompts.released.size(), 1u);
  EXPECT_EQ(b.prompts.released.at(0).lease_id, 0u);
}

// The store and the rewards may have ended before the actor, and each question would take seconds.
TEST(Rollout, WhoIsToEndAsksNobodyForMore) {
  Bench b;
  b.sink_away = 1'000'000;
  b.prompts.finish = false;
  b.prompts.queue.push_back(MakeLease(0, 0));
  int renewals = 0;
  bool ending = false;
  b.options.renew_ms = 0;
  b.surroundings.stop = [&] { return ending; };
  Rollout& rollout = b.Make();
  while (b.sink_away == 1'000'000) rollout.Pump(Deadline{});  // until a group waits for the sink
  renewals = b.prompts.renewals;
  EXPECT_GT(renewals, 0);
  ending = true;
  const int offers = b.sink_away;
  b.prompts.queue.push_back(MakeLease(1, 0));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(rollout.Pump(After(milliseconds(1))));
  EXPECT_EQ(b.sink_away, offers) << "the sink was not asked";
  EXPECT_EQ(b.prompts.renewals, renewals);
  EXPECT_EQ(b.prompts.queue.size(), 1u) << "no further lease";

  // Within a pump, too: a stop that comes while the store is asked.
  Bench within;
  within.prompts.queue.push_back(MakeLease(0, 0));
  within.surroundings.stop = [&] { return within.prompts.queue.empty(); };
  EXPECT_TRUE(within.Make().Pump(After(milliseconds(200))));
  EXPECT_TRUE(within.groups.empty());
  within.rollout->Stop();
  EXPECT_EQ(within.prompts.released.size(), 1u);
}

TEST(Rollout, StopGivesUnansweredLeasesBack) {
  Bench b;
  b.options.engine.max_batch = 4;
  b.options.group_size_hint = 3;
  for (uint64_t i = 0; i < 6; ++i) b.prompts.queue.push_back(MakeLease(i, i < 5 ? 0 : 1));
  Rollout& rollout = b.Make();
  for (int i = 0; i < 10; ++i) rollout.Pump(Deadline{});
  const size_t leased = rollout.counters().leases;
  rollout.Stop();
  EXPECT_EQ(b.groups.size() + b.prompts.released.size(), leased);
  EXPECT_FALSE(b.prompts.released.empty());
  EXPECT_EQ(rollout.in_flight(), 0u);
  EXPECT_EQ(rollout.engine().free_pages(), rollout.engine().num_pages());
}

}  // namespace
}  // namespace plumb::actor
