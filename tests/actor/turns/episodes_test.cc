// Conversations of the actor with environments: what becomes of an answer, whatever the environment
// does and however long it takes.
#include "actor/turns/episodes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "actor/rollout.h"
#include "common/base/error.h"
#include "tests/actor/tiny.h"
#include "tests/actor/turns/scripted.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

// Answers as it is told, each reply after a random while.
class Scripted : public EnvironmentPort {
 public:
  using Script = std::function<EnvironmentReply(uint32_t sample, int turn, const std::string&)>;
  explicit Scripted(Script script, uint64_t delays = 0)
      : script_(std::move(script)), late_(delays) {}

  std::string ToolsJson() const override { return ""; }
  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override {
    ASSERT_TRUE(samples_.emplace(episode, sample).second);
    prompts.insert(prompt.text);
    Say(episode, begins ? begins(sample) : EnvironmentReply{});
  }
  void Act(uint64_t episode, const std::string& text) override {
    texts.insert(text);
    const int turn = turns_[episode]++;
    if (silent) return;
    Say(episode, script_(samples_.at(episode), turn, text));
  }
  std::vector<EnvironmentReply> Poll(Deadline deadline) override { return late_.Poll(deadline); }
  void End(uint64_t episode) override {
    ASSERT_EQ(samples_.erase(episode), 1u) << "ended twice";
    late_.Forget(episode);
  }
  size_t open() const { return samples_.size(); }

  std::function<EnvironmentReply(uint32_t sample)> begins;
  bool silent = false;
  std::set<std::string> prompts, texts;

 private:
  void Say(uint64_t episode, EnvironmentReply reply) {
    reply.episode = episode;
    late_.Say(std::move(reply));
  }

  const Script script_;
  LateEvents<EnvironmentReply> late_;
  std::map<uint64_t, uint32_t> samples_;
  std::map<uint64_t, int> turns_;
};

EnvironmentReply Text(const std::string& text, std::optional<double> reward = {}) {
  EnvironmentReply reply;
  reply.text = text;
  reply.reward = reward;
  return reply;
}

EnvironmentReply Done(const std::string& text = "", std::optional<double> reward = {}) {
  EnvironmentReply reply = Text(text, reward);
  reply.done = true;
  return reply;
}

// Two replies, then the end.
EnvironmentReply TwoReplies(uint32_t sample, int turn, const std::string&) {
  if (turn == 2) return Done("Z", 1.0);
  return Text(std::string(1 + sample + static_cast<uint32_t>(turn), 'Q'), 0.25);
}

RolloutOptions Options() {
  RolloutOptions o;
  o.engine = TinyOptions();
  o.engine.turns = true;
  o.engine.stop = {"a", "g", "m", "s", "y", "C"};
  o.episodes.max_new_tokens = o.engine.max_new_tokens;
  o.episodes.eos = o.engine.eos;
  return o;
}

struct Result {
  std::map<uint64_t, TrajectoryGroup> groups;
  EpisodeCounters counters;
};

Result Generate(Scripted& environment, const RolloutOptions& options, int leases = 4,
                const ChatTemplate* chat = nullptr) {
  Leases source(leases);
  Result result;
  result.groups =
      WorkThrough(source, options, chat, {.environment = &environment},
                  [&](const Rollout& rollout) { result.counters = rollout.episode_counters(); });
  EXPECT_EQ(environment.open(), 0u) << "episodes that nobody ended";
  EXPECT_EQ(result.groups.size(), static_cast<size_t>(leases));
  return result;
}

TEST(Episodes, AnAnswerIsAConversation) {
  Scripted environment(TwoReplies);
  const Result result = Generate(environment, Options());
  const LetterTokenizer tokenizer;
  int whole = 0;
  for (const auto& [id, group] : result.groups) {
    EXPECT_TRUE(environment.prompts.contains(group.lease.prompt.text));
    for (const Trajectory& t : group.trajectories) {
      ASSERT_FALSE(t.turns.empty());
      int32_t learned = 0;
      for (const Segment& s : t.segments) {
        const auto begin = t.loss_mask.begin();
        learned += s.origin == Origin::kPolicy ? s.end - s.begin : 0;
        EXPECT_EQ(std::count(begin + s.begin, begin + s.end, 1),
                  s.origin == Origin::kPolicy ? s.end - s.begin : 0);
      }
      EXPECT_EQ(t.policy_length(), learned);
      EXPECT_LE(t.completion_length(), 60);
      if (t.turns.size() != 3 || t.finish != FinishReason::kStop || t.completion_length() == 60)
        continue;  // no room for the last words
      ++whole;
      ASSERT_EQ(t.segments.size(), 7u);
      EXPECT_EQ(t.turns[0].reward, 0.25);
      EXPECT_EQ(t.turns[2].reward, 1.0);
      EXPECT_TRUE(t.turns[0].called);
      EXPECT_EQ(t.turns[1].segment, 3);
      const Segment& said = t.segments[2];
      EXPECT_EQ(said.end - said.begin, static_cast<int32_t>(1 + t.sample));
      EXPECT_EQ(t.tokens.back(), tokenizer.Encode("Z", true)[0]);
      EXPECT_LT(t.policy_length(), t.completion_length());
      // The environment heard what the policy wrote, without the end token.
      const Segment& first = t.segments[1];
      std::string text = tokenizer.Decode(
          std::span(t.tokens).subspan(static_cast<size_t>(first.begin),
                                      static_cast<size_t>(first.end - first.begin)),
          false);
      if (text.ends_with("<5x>")) text.resize(text.size() - 4);
      EXPECT_TRUE(environment.texts.contains(text)) << text;
    }
  }
  EXPECT_GE(whole, 3);
  EXPECT_EQ(result.counters.episodes, 12u);
  EXPECT_EQ(result.counters.failures, 0u);
}

// Neither the batch nor how long an environment takes changes a bit of an answer.
TEST(Episodes, DoNotDependOnTiming) {
  Scripted at_once(TwoReplies);
  const Result first = Generate(at_once, Options(), 6);
  for (uint64_t delays = 1; delays <= 3; ++delays) {
    Scripted slow(TwoReplies, delays);
    RolloutOptions options = Options();
    options.engine.max_batch = delays == 1 ? 16 : 3;
    options.engine.prefill_tokens = delays == 3 ? 4 : 64;
    const Result other = Generate(slow, options, 6);
    for (const auto& [id, group] : first.groups)
      EXPECT_EQ(group.trajectories, other.groups.at(id).trajectories) << delays << " " << id;
  }
}

TEST(Episodes, LimitsGiveWhatThereIs) {
  Scripted endless([](uint32_t, int, const std::string&) { return Text("QQ", 0.5); });
  RolloutOptions options = Options();
  options.episodes.max_turns = 2;
  for (const auto& [id, group] : Generate(endless, options).groups) {
    for (const Trajectory& t : group.trajectories) {
      EXPECT_LE(t.turns.size(), 2u);
      EXPECT_EQ(t.finish, FinishReason::kLength);
      EXPECT_EQ(t.segments.back().origin, Origin::kPolicy) << "nobody would answer it";
      if (t.turns.size() == 2) {
        EXPECT_EQ(t.turns[0].reward, 0.5);
      }
    }
  }
  Scripted talks([](uint32_t, int, const std::string&) { return Text(std::string(70, 'Q')); });
  const Result cut = Generate(talks, Options());
  EXPECT_GT(cut.counters.cut_replies, 0u);
  for (const auto& [id, group] : cut.groups) {
    for (const Trajectory& t : group.trajectories) {
      EXPECT_EQ(t.finish, FinishReason::kLength);
      EXPECT_EQ(t.completion_length(), 60) << "as much as there is room for";
    }
  }
  options = Options();
  options.episodes.reply_tokens = 4;
  Scripted chatty([](uint32_t, int turn, const std::string&) {
    return turn == 1 ? Done() : Text("QRQRQRQRQR");
  });
  const Result short_replies = Generate(chatty, options);
  EXPECT_GT(short_replies.counters.cut_replies, 0u);
  for (const auto& [id, group] : short_replies.groups) {
    for (const Trajectory& t : group.trajectories) {
      for (const Segment& s : t.segments) {
        if (s.origin == Origin::kEnvironment) {
          EXPECT_EQ(s.end - s.begin, 4);
        }
      }
    }
  }
}

TEST(Episodes, AnEnvironmentThatNeverAnswersEndsByTime) {
  Scripted silent(TwoReplies);
  silent.silent = true;
  RolloutOptions options = Options();
  options.episodes.episode_time = milliseconds(60);
  const Result result = Generate(silent, options, 1);
  EXPECT_GT(result.counters.timeouts, 0u);
  for (const Trajectory& t : result.groups.at(0).trajectories) {
    EXPECT_EQ(t.finish, FinishReason::kLength);
    EXPECT_EQ(t.turns.size(), 1u) << "partial, and kept";
    EXPECT_GT(t.policy_length(), 0);
  }
}

TEST(Episodes, AFailureGivesTheAnswerUpWithItsReason) {
  Scripted fails([](uint32_t sample, int turn, const std::string& text) {
    if (sample != 1) return TwoReplies(sample, turn, text);
    EnvironmentReply reply;
    reply.error = "the process died";
    return reply;
  });
  const Result result = Generate(fails, Options(), 2);
  for (const auto& [id, group] : result.groups) {
    const Trajectory& t = group.trajectories[1];
    EXPECT_EQ(t.finish, FinishReason::kAborted);
    EXPECT_EQ(t.unscored_reason, "environment: the process died");
    EXPECT_EQ(std::count(t.loss_mask.begin(), t.loss_mask.end(), 1), 0);
    EXPECT_NE(group.trajectories[0].finish, FinishReason::kAborted);
  }
  EXPECT_EQ(result.counters.failures, 2u);
}

TEST(Episodes, WhatItSaysFirstStandsBehindThePrompt) {
  Scripted speaks(TwoReplies);
  speaks.begins = [](uint32_t sample) {
    if (sample == 2) {
      EnvironmentReply reply;
      reply.error = "it did not begin";
      return reply;
    }
    return sample == 1 ? Text("") : Text("XY");
  };
  const Result result = Generate(speaks, Options(), 2);
  const LetterTokenizer tokenizer;
  for (const auto& [id, group] : result.groups) {
    const Trajectory& t = group.trajectories[0];
    ASSERT_GT(t.segments.size(), 2u);
    EXPECT_EQ(t.segments[1].origin, Origin::kEnvironment);
    EXPECT_EQ(t.tokens[static_cast<size_t>(t.prompt_length())], tokenizer.Encode("X", true)[0]);
    EXPECT_EQ(t.turns[0].segment, 2);
    EXPECT_EQ(group.trajectories[1].segments[1].origin, Origin::kPolicy);
    EXPECT_EQ(group.trajectories[2].finish, FinishReason::kAborted);
    EXPECT_NE(group.trajectories[2].unscored_reason.find("did not begin"), std::string::npos);
  }
}

TEST(Episodes, RepliesGoThroughTheChatTemplate) {
  const auto chat = ChatTemplate::Parse(
      "{% for m in messages %}{{ 'R' if m.role == 'user' else 'T' if m.role == 'tool' else 'P' }}"
      "{{ m.content }}{% if m.role == 'assistant' %}<5x>{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}P{% endif %}",
      "", "<5x>");
  // An end token is one token in this tokenizer, though it reads none from texts.
  Scripted environment([](uint32_t, int turn, const std::string&) {
    EnvironmentReply reply;
    reply.messages = {{.role = "tool", .content = "QQ"}};
    reply.done = turn == 1;
    return reply;
  });
  RolloutOptions options = Options();
  options.engine.stop = {};
  options.engine.sampling.temperature = 2.0f;
  const Result result = Generate(environment, options, 12, chat.get());
  const LetterTokenizer tokenizer;
  int seen = 0;
  for (const auto& [id, group] : result.groups) {
    for (const Trajectory& t : group.trajectories) {
      for (size_t i = 1; i < t.segments.size(); ++i) {
        const Segment& s = t.segments[i];
        if (s.origin != Origin::kEnvironment) continue;
        const auto said = std::span(t.tokens).subspan(static_cast<size_t>(s.begin),
                                                      static_cast<size_t>(s.end - s.begin));
        const std::string text = tokenizer.Decode(said, false);
        EXPECT_TRUE(text == "TQQP" || text == "TQQ" || s.end == std::ssize(t.tokens)) << text;
        EXPECT_EQ(t.tokens[static_cast<size_t>(s.begin) - 1], 60) << "the end token, once";
        seen += text == "TQQP";
      }
    }
  }
  EXPECT_GT(seen, 0);
}

TEST(Episodes, WhatCannotBeTokenizedIsTheEnvironmentsFailure) {
  const auto chat = ChatTemplate::Parse(
      "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "", "");
  Scripted environment(TwoReplies);
  const Result result = Generate(environment, Options(), 1, chat.get());
  for (const Trajectory& t : result.groups.at(0).trajectories) {
    if (t.finish == FinishReason::kLength) continue;  // no turn ended
    EXPECT_EQ(t.finish, FinishReason::kAborted);
    EXPECT_NE(t.unscored_reason.find("turn 1"), std::string::npos) << t.unscored_reason;
  }
}

TEST(Episodes, AStopGivesLeasesBackAndEndsConversations) {
  Scripted silent(TwoReplies);
  silent.silent = true;
  policy_model::Weights weights = TinyWeights();
  SharedPolicy policy(
      &weights,
      [] {
        return PolicyVersion{0, "zero"};
      },
      [] { return 0; });
  Leases source(2);
  const LetterTokenizer tokenizer;
  Rollout rollout(TinyShape(), Device::kCpu, DType::kFloat32, Options(), &source, &policy,
                  &tokenizer, nullptr, [](const TrajectoryGroup&) {}, {.environment = &silent});
  for (int i = 0; i < 80; ++i) rollout.Pump(After(milliseconds(1)));
  EXPECT_EQ(silent.open(), 6u);
  rollout.Stop();
  EXPECT_EQ(silent.open(), 0u);
  EXPECT_EQ(source.released, 2u);
}

}  // namespace
}  // namespace plumb::actor
