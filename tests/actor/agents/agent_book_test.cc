// Agents that ask the policy themselves: what becomes of their conversations, whoever else runs and
// whatever they do.
#include "actor/agents/agent_book.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <set>

#include "actor/rollout.h"
#include "common/record/agent.h"
#include "tests/actor/tiny.h"
#include "tests/actor/turns/scripted.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

std::vector<int32_t> Letters(const std::string& text) {
  return LetterTokenizer().Encode(text, true);
}

// Leads an episode by a script: what it does at its begin (no answer) and behind each answer.
class Scripted : public AgentPort {
 public:
  struct Act {
    std::vector<AgentCall> calls = {};  // without numbers of calls and episodes
    std::optional<double> reward = {};
    bool ends = false;
    bool leaves = false;  // the answer just told reached nobody
    std::string error = {};
  };
  using Script = std::function<Act(uint32_t sample, int answers, const AgentAnswer*)>;
  explicit Scripted(Script script, uint64_t delays = 0)
      : script_(std::move(script)), late_(delays) {}

  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override {
    EXPECT_FALSE(prompt.text.empty());
    EXPECT_FALSE(prompt.tokens.empty());
    samples_[episode] = sample;
    Do(episode, nullptr);
  }
  std::vector<AgentEvent> Poll(Deadline deadline) override { return late_.Poll(deadline); }
  void Answer(AgentAnswer answer) override {
    if (!samples_.contains(answer.episode)) return;
    EXPECT_EQ(answer.tokens.size(), answer.logprobs.size());
    EXPECT_EQ(answer.refused.empty(), !answer.tokens.empty());
    answers.push_back(answer);
    ++answered_[answer.episode];
    Do(answer.episode, &answers.back());
  }
  void End(uint64_t episode) override {
    EXPECT_EQ(samples_.erase(episode), 1u) << "ended twice";
    late_.Forget(episode);
  }
  size_t open() const { return samples_.size(); }

  std::deque<AgentAnswer> answers;

 private:
  void Do(uint64_t episode, const AgentAnswer* answer) {
    const Act act = script_(samples_.at(episode), answered_[episode], answer);
    if (act.leaves) {
      AgentEvent left{.kind = AgentEvent::Kind::kLeft, .episode = episode};
      left.call = called_.at(answer->call);
      late_.Say(std::move(left));
    }
    for (AgentCall call : act.calls) {
      call.call = ++next_;
      call.episode = episode;
      called_[call.call] = call;
      late_.Say({.kind = AgentEvent::Kind::kCall, .call = call, .episode = episode});
    }
    if (act.ends || !act.error.empty()) {
      late_.Say({.kind = AgentEvent::Kind::kEnded,
                 .episode = episode,
                 .reward = act.reward,
                 .error = act.error});
    }
  }

  const Script script_;
  LateEvents<AgentEvent> late_;
  std::map<uint64_t, uint32_t> samples_;
  std::map<uint64_t, int> answered_;
  std::map<uint64_t, AgentCall> called_;
  uint64_t next_ = 0;
};

using Act = Scripted::Act;

AgentCall Begins(uint32_t conversation, const std::string& text, int32_t limit = 5) {
  return {.conversation = conversation, .begins = true, .tokens = Letters(text), .limit = limit};
}
AgentCall GoesOn(uint32_t conversation, const std::string& text, int32_t limit = 5) {
  return {.conversation = conversation, .tokens = Letters(text), .limit = limit};
}

// Four calls of one conversation.
Act FourCalls(uint32_t sample, int answers, const AgentAnswer*) {
  if (answers == 0) return {.calls = {Begins(0, "systemPrompt")}};
  if (answers < 4) return {.calls = {GoesOn(0, std::string(1 + sample, 'Q') + "tool")}};
  return {.reward = 0.25 * (1 + sample), .ends = true};
}

RolloutOptions Options() {
  RolloutOptions o;
  o.engine = TinyOptions();
  o.engine.turns = true;
  o.agents = {.max_turns = 12, .max_prompt_tokens = 40, .max_new_tokens = 60, .max_positions = 160};
  return o;
}

struct Result {
  std::map<uint64_t, TrajectoryGroup> groups;
  EpisodeCounters counters;
  AgentCounters agents;
  EngineCounters engine;
};

Result Generate(Scripted& agents, const RolloutOptions& options, int leases = 4,
                Purpose purpose = Purpose::kTrain) {
  Leases source(leases, purpose);
  Result result;
  result.groups = WorkThrough(source, options, /*chat=*/nullptr, {.agents = &agents},
                              [&](const Rollout& rollout) {
                                result.counters = rollout.episode_counters();
                                result.agents = rollout.agent_counters();
                                result.engine = rollout.engine().counters();
                              });
  EXPECT_EQ(agents.open(), 0u) << "episodes that nobody ended";
  EXPECT_EQ(result.groups.size(), static_cast<size_t>(leases));
  return result;
}

TEST(AgentBook, AConversationIsATrajectory) {
  Scripted agents(FourCalls);
  const Result result = Generate(agents, Options());
  const LetterTokenizer tokenizer;
  std::multiset<std::vector<float>> told, recorded;
  for (const AgentAnswer& answer : agents.answers) told.insert(answer.logprobs);
  for (const auto& [id, group] : result.groups) {
    ASSERT_EQ(group.trajectories.size(), 3u);
    for (const Trajectory& t : group.trajectories) {
      EXPECT_NE(t.finish, FinishReason::kAborted);
      ASSERT_EQ(t.turns.size(), 4u);
      ASSERT_EQ(t.segments.size(), 8u);
      EXPECT_EQ(t.segments[0], (Segment{Origin::kPrompt, 0, 12}));
      EXPECT_EQ(t.turns[3].reward, 0.25 * (1 + t.sample));
      EXPECT_FALSE(t.turns[0].reward);
      EXPECT_TRUE(t.turns[0].called);
      EXPECT_FALSE(t.turns[3].called);
      for (const Segment& s : t.segments) {
        const auto begin = t.loss_mask.begin();
        const bool policy = s.origin == Origin::kPolicy;
        EXPECT_EQ(std::count(begin + s.begin, begin + s.end, 1), policy ? s.end - s.begin : 0);
        if (policy) recorded.emplace(t.logprobs.begin() + s.begin, t.logprobs.begin() + s.end);
      }
      EXPECT_NE(t.completion.find(std::string(1 + t.sample, 'Q') + "tool"), std::string::npos);
    }
    EXPECT_NE(group.trajectories[0].tokens, group.trajectories[1].tokens) << "draws of their own";
  }
  EXPECT_EQ(told, recorded) << "what agents were told is what is learned from";
  EXPECT_EQ(result.counters.episodes, 12u);
  EXPECT_EQ(result.counters.turns, 48u);
  EXPECT_EQ(result.counters.failures, 0u);
  EXPECT_EQ(result.agents.branches, 0u);
  EXPECT_GT(result.engine.appended_tokens, 0u) << "pages are gone on with";
  EXPECT_EQ(result.agents.put_aside, 0u);
}

// Neither the batch, nor how long an agent takes, nor that its slot went to others meanwhile
// changes a bit.
TEST(AgentBook, DoesNotDependOnTiming) {
  Scripted at_once(FourCalls);
  const Result first = Generate(at_once, Options(), 6);
  for (uint64_t delays = 1; delays <= 2; ++delays) {
    Scripted slow(FourCalls, delays);
    RolloutOptions options = Options();
    options.engine.max_batch = 2;
    options.engine.prefill_tokens = delays == 2 ? 4 : 64;
    const Result other = Generate(slow, options, 6);
    EXPECT_GT(other.agents.put_aside, 0u);
    for (const auto& [id, group] : first.groups)
      EXPECT_EQ(group.trajectories, other.groups.at(id).trajectories) << delays << " " << id;
  }
}

// Sampling filters are recorded over all parts of a conversation that was put aside.
TEST(AgentBook, KeptSetsBelongToTheirTokens) {
  RolloutOptions options = Options();
  options.engine.record_kept = true;
  options.engine.sampling.top_k = 5;
  Scripted at_once(FourCalls);
  const Result first = Generate(at_once, options, 4);
  options.engine.max_batch = 2;
  Scripted slow(FourCalls, 1);
  const Result other = Generate(slow, options, 4);
  EXPECT_GT(other.agents.put_aside, 0u);
  for (const auto& [id, group] : first.groups) {
    EXPECT_FALSE(group.trajectories[0].kept.empty());
    EXPECT_EQ(group.trajectories, other.groups.at(id).trajectories);
  }
}

// A sub-agent, and a history that was begun anew.
Act Branches(uint32_t, int answers, const AgentAnswer*) {
  if (answers == 0) return {.calls = {Begins(0, "main")}};
  if (answers == 1) return {.calls = {Begins(1, "sub"), Begins(2, "sub")}};
  if (answers == 2) return {};
  if (answers == 3) return {.calls = {GoesOn(0, "found")}};
  return {.reward = 1.0, .ends = true};
}

TEST(AgentBook, BranchesAreTrajectoriesOfTheirOwnWithTheEpisodesReward) {
  Scripted agents(Branches);
  const Result result = Generate(agents, Options(), 2);
  EXPECT_EQ(result.agents.branches, 12u);
  for (const auto& [id, group] : result.groups) {
    ASSERT_EQ(group.trajectories.size(), 9u);
    EXPECT_EQ(group.lease.num_samples, 9);
    for (size_t i = 0; i < 9; ++i) {
      const Trajectory& t = group.trajectories[i];
      EXPECT_EQ(t.sample, i);
      EXPECT_EQ(t.turns.back().reward, 1.0);
      EXPECT_EQ(t.turns.size(), i % 3 == 0 ? 2u : 1u) << "the one that spoke last is in front";
    }
    EXPECT_NE(group.trajectories[1].tokens, group.trajectories[2].tokens)
        << "the same question asked twice has two answers";
  }
  // What is measured is measured once an answer.
  Scripted again(Branches);
  for (const auto& [id, group] : Generate(again, Options(), 2, Purpose::kEval).groups) {
    ASSERT_EQ(group.trajectories.size(), 3u);
    for (const Trajectory& t : group.trajectories) EXPECT_EQ(t.turns.size(), 2u);
  }
}

TEST(AgentBook, StopStringsAndLimitsEndACall) {
  Scripted agents([](uint32_t, int answers, const AgentAnswer*) -> Act {
    if (answers > 0) return {.ends = true};
    AgentCall call = Begins(0, "main", 50);
    call.stop = {"a", "e", "i", "o", "u", "n", "t"};
    return {.calls = {call}};
  });
  const Result result = Generate(agents, Options(), 4);
  const LetterTokenizer tokenizer;
  int stopped = 0;
  for (const AgentAnswer& answer : agents.answers) {
    if (answer.stop.empty()) continue;
    ++stopped;
    EXPECT_EQ(answer.finish, FinishReason::kStop);
    EXPECT_EQ(tokenizer.TokenBytes(answer.tokens.back()), answer.stop);
  }
  EXPECT_GT(stopped, 3);
  Scripted short_ones(FourCalls);
  RolloutOptions options = Options();
  options.agents.max_turns = 2;
  Generate(short_ones, options, 1);
}

TEST(AgentBook, WhatGoesBeyondALimitIsRefusedAndTheRestCounts) {
  std::set<std::string> codes;
  Scripted agents([&](uint32_t, int answers, const AgentAnswer* last) -> Act {
    if (last != nullptr && !last->refused.empty()) {
      codes.insert(last->code);
      return {.reward = 1.0, .ends = true};
    }
    if (answers == 0) return {.calls = {Begins(0, "main", 0)}};
    return {.calls = {GoesOn(0, "more", 0)}};
  });
  RolloutOptions options = Options();
  options.agents.max_turns = 3;
  const Result result = Generate(agents, options);
  EXPECT_EQ(result.agents.refused, 12u);
  EXPECT_TRUE(codes.contains("max_turns") || codes.contains("context_length_exceeded"));
  for (const auto& [id, group] : result.groups) {
    for (const Trajectory& t : group.trajectories) {
      EXPECT_LE(t.completion_length(), 60);
      EXPECT_LE(t.turns.size(), 3u);
      EXPECT_EQ(t.turns.back().reward, 1.0);
      EXPECT_GT(t.policy_length(), 0);
    }
  }
  // A prompt that is too long never began.
  Scripted wordy([](uint32_t, int answers, const AgentAnswer*) -> Act {
    if (answers == 0) return {.calls = {Begins(0, std::string(41, 'x'))}};
    return {.ends = true};
  });
  for (const auto& [id, group] : Generate(wordy, options, 1).groups) {
    for (const Trajectory& t : group.trajectories) {
      EXPECT_EQ(t.finish, FinishReason::kAborted);
      EXPECT_NE(t.unscored_reason.find("without having asked"), std::string::npos);
      EXPECT_EQ(t.completion_length(), 0);
    }
  }
}

TEST(AgentBook, AnAgentThatFailsGivesItsAnswerUp) {
  Scripted agents([](uint32_t sample, int answers, const AgentAnswer* last) -> Act {
    if (sample == 1 && answers == 2) return {.error = "it fell over"};
    if (sample == 2 && answers == 0)
      return {.calls = {Begins(0, "late", 60)}, .error = "no patience"};
    return FourCalls(sample, answers, last);
  });
  const Result result = Generate(agents, Options());
  EXPECT_EQ(result.counters.failures, 8u);
  for (const auto& [id, group] : result.groups) {
    ASSERT_EQ(group.trajectories.size(), 3u);
    EXPECT_NE(group.trajectories[0].finish, FinishReason::kAborted);
    const Trajectory& fell = group.trajectories[1];
    EXPECT_EQ(fell.finish, FinishReason::kAborted);
    EXPECT_EQ(fell.unscored_reason, "environment: it fell over");
    EXPECT_EQ(fell.turns.size(), 2u);
    EXPECT_EQ(std::count(fell.loss_mask.begin(), fell.loss_mask.end(), 1), 0);
    EXPECT_EQ(group.trajectories[2].finish, FinishReason::kAborted);
  }
}

// A client that gave up and asked again: the answer that nobody read is not learned from.
TEST(AgentBook, ATurnThatReachedNobodyBelongsToNone) {
  Scripted agents([](uint32_t, int answers, const AgentAnswer*) -> Act {
    if (answers == 0) return {.calls = {Begins(0, "main")}};
    if (answers == 1) return {.calls = {GoesOn(0, "tool")}};
    if (answers == 2) return {.calls = {Begins(1, "mainagain")}, .leaves = true};
    return {.reward = 0.5, .ends = true};
  });
  const Result result = Generate(agents, Options(), 2);
  EXPECT_EQ(result.agents.left_calls, 6u);
  for (const auto& [id, group] : result.groups) {
    ASSERT_EQ(group.trajectories.size(), 6u);
    for (const Trajectory& t : group.trajectories) {
      EXPECT_EQ(t.turns.size(), 1u);
      EXPECT_EQ(t.segments.size(), 2u) << "nor what was put in front of it";
    }
  }
}

TEST(AgentBook, AnActorThatStopsLeavesNothingBehind) {
  Scripted agents([](uint32_t, int answers, const AgentAnswer*) -> Act {
    if (answers == 0) return {.calls = {Begins(0, "main")}};
    return {};  // and is never heard of again
  });
  policy_model::Weights weights = TinyWeights();
  SharedPolicy policy(
      &weights,
      [] {
        return PolicyVersion{0, "zero"};
      },
      [] { return 0; });
  Leases source(3);
  const LetterTokenizer tokenizer;
  Rollout rollout(TinyShape(), Device::kCpu, DType::kFloat32, Options(), &source, &policy,
                  &tokenizer, nullptr, [](const TrajectoryGroup&) { FAIL(); }, {.agents = &agents});
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(rollout.Pump(After(milliseconds(20))));
  EXPECT_EQ(agents.answers.size(), 9u);
  rollout.Stop();
  EXPECT_EQ(agents.open(), 0u);
  EXPECT_TRUE(rollout.engine().idle());
  EXPECT_EQ(rollout.engine().free_pages(), rollout.engine().num_pages());
}

}  // namespace
}  // namespace plumb::actor
