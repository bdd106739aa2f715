// Combination and failure policy (reward/scorer.h), the pool (worker_pool.h) and the walls' probing
// (sandbox.h).
#include "reward/scorer.h"

#include <gtest/gtest.h>
#include <linux/filter.h>

#include <algorithm>
#include <thread>

#include "common/sandbox/sandbox.h"
#include "reward/doors/worker_pool.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

using configs::OnFailure;

configs::RewardPartConfig Named(configs::RewardPartConfig part, const std::string& name,
                                double weight = 1) {
  part.name = name;
  part.weight = weight;
  return part;
}

TEST(GroupScorer, WeighsPartsAndSaysWhoMadeThem) {
  configs::RewardConfig config;
  config.parts = {Named(TestPart("answer"), "correct", 2), Named(TestPart("format"), "shape", 0.5),
                  Named(TestPart("plugin", PluginPath("keyword_reward")), "words", 1)};
  GroupScorer scorer(config, TestHost());
  TrajectoryGroup group = TestGroup({"<think>x</think><answer>4</answer>", "4"}, "4");
  group.trajectories[0].scored = false;
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored);
  EXPECT_EQ(group.trajectories[0].reward, 2 + 0.5 + 1);
  EXPECT_EQ(group.trajectories[1].reward, 1);
  ASSERT_EQ(group.trajectories[0].rewards.size(), 3u);
  EXPECT_EQ(group.trajectories[0].rewards[0].name, "correct");
  EXPECT_EQ(group.trajectories[0].rewards[0].weight, 2);
  EXPECT_EQ(group.trajectories[0].rewards[2].function_digest.substr(0, 7), "sha256:");
  EXPECT_EQ(scorer.Digests().size(), 3u);
  // Scoring again replaces, it does not append.
  scorer.ScoreGroup(group);
  EXPECT_EQ(group.trajectories[0].rewards.size(), 3u);
}

TEST(GroupScorer, PolicyDecidesAboutFailures) {
  Notices notices;
  configs::RewardConfig config;
  config.parts = {Named(TestPart("plugin", PluginPath("reported")), "code"),
                  Named(TestPart("format"), "shape")};
  config.retries = 1;
  for (const auto policy : {OnFailure::kDropGroup, OnFailure::kRequeue, OnFailure::kPenalty}) {
    config.on_failure = policy;
    config.penalty = -1.5;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"bad", "<think>a</think><answer>good</answer>"});
    const Outcome outcome = scorer.ScoreGroup(group);
    const auto counters = scorer.Counters();
    EXPECT_EQ(counters.at("reward/failed/code/reported"), 2u) << "each attempt counts";
    EXPECT_EQ(counters.at("reward/retries"), 1u);
    if (policy == OnFailure::kPenalty) {
      EXPECT_EQ(outcome, Outcome::kScored);
      EXPECT_TRUE(group.trajectories[0].scored);
      EXPECT_EQ(group.trajectories[0].reward, -1.5);
      EXPECT_EQ(group.trajectories[0].rewards.back().name, "penalty");
      EXPECT_EQ(group.trajectories[1].reward, 1.25);
      EXPECT_EQ(counters.at("reward/penalised"), 1u);
      double sum = 0;
      for (const RewardPart& part : group.trajectories[0].rewards) sum += part.weight * part.value;
      EXPECT_EQ(sum, group.trajectories[0].reward);
    } else {
      EXPECT_EQ(outcome, Outcome::kUnscored);
      EXPECT_FALSE(group.trajectories[0].scored);
      EXPECT_EQ(group.trajectories[0].reward, 0);
      const std::string& reason = group.trajectories[0].unscored_reason;
      EXPECT_NE(reason.find("cannot read this"), std::string::npos) << reason;
      EXPECT_TRUE(group.trajectories[1].scored) << "what becomes of its group is not decided here";
      EXPECT_EQ(group.trajectories[1].rewards.size(), 2u);
    }
  }
}

// The actor gave two answers up: no part is asked for them, under no policy do they get a score,
// and their reason stays.
TEST(GroupScorer, AnswersThatWereNeverGeneratedAreNotScored) {
  for (const auto policy : {OnFailure::kDropGroup, OnFailure::kRequeue, OnFailure::kPenalty}) {
    Notices notices;
    configs::RewardConfig config;
    // One part counts the answers it is given, one would pay for an empty answer.
    config.parts = {
        Named(TestPart("program", "sh",
                       {"-c", R"(while IFS= read -r line; do id=${line#'{"id":'}; id=${id%%,*}
                              case "$line" in *given*) printf '{"id":%s,"error":"asked for it"}\n' "$id";; *) printf '{"id":%s,"score":1}\n' "$id";; esac; done)"}),
              "program"),
        Named(TestPart("length", "", {}), "brief")};
    config.parts[1].target_tokens = 2;
    config.parts[1].max_tokens = 10;
    config.on_failure = policy;
    config.penalty = -1;
    config.allow_unsandboxed = true;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"given up", "four", "given up, too", "five"}, "", "", 77);
    for (const size_t i : {0u, 2u}) {
      group.trajectories[i].finish = FinishReason::kAborted;
      group.trajectories[i].unscored_reason = "no room for sample " + std::to_string(i);
    }
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    for (size_t i = 0; i < 4; ++i) {
      const Trajectory& t = group.trajectories[i];
      EXPECT_EQ(t.scored, i % 2 == 1) << NameOf(policy) << i << t.unscored_reason;
      EXPECT_EQ(t.reward, i % 2 == 1 ? 2 : 0) << NameOf(policy) << i;
      EXPECT_EQ(t.rewards.size(), i % 2 == 1 ? 2u : 0u) << NameOf(policy) << i;
      EXPECT_EQ(t.unscored_reason, i % 2 == 1 ? "" : "no room for sample " + std::to_string(i));
    }
    auto counters = scorer.Counters();
    EXPECT_EQ(counters["reward/aborted"], 2u);
    EXPECT_EQ(counters["reward/penalised"], 0u);
    EXPECT_NE(
        notices.text().find(
            "group 77: 2 of 4 answers were never generated and get no score: no room for sample 0"),
        std::string::npos)
        << notices.text();

    for (Trajectory& t : group.trajectories) t.finish = FinishReason::kAborted;
    scorer.ScoreGroup(group);
    EXPECT_TRUE(std::none_of(group.trajectories.begin(), group.trajectories.end(),
                             [](const Trajectory& t) { return t.scored; }));
    EXPECT_EQ(scorer.Latencies().size(), 4u) << "two numbers a part, of the one call before";
    counters = scorer.Counters();
    EXPECT_EQ(counters["reward/aborted"], 6u);
    for (const auto& [name, count] : counters)
      EXPECT_FALSE(name.starts_with("reward/failed/")) << name << count;
  }
}

// Each part has lines of its own in the log, however much another part fails.
TEST(GroupScorer, EveryFailingPartIsSaidAndWhatIsLeftOutIsCounted) {
  Notices notices;
  configs::RewardConfig config;
  config.parts = {Named(TestPart("plugin", PluginPath("reported")), "loud"),
                  Named(TestPart("answer"), "quiet")};
  config.retries = 0;
  config.allow_unsandboxed = true;
  GroupScorer scorer(config, TestHost());
  for (uint64_t i = 0; i < 20; ++i) {
    // no ground truth in the last
    TrajectoryGroup group = TestGroup({"bad"}, i < 19 ? "4" : "", "", i);
    scorer.ScoreGroup(group);
  }
  EXPECT_NE(notices.text().find("reward 'quiet' on group 19"), std::string::npos) << notices.text();
  EXPECT_NE(notices.text().find("reward 'loud' on group 0: reported"), std::string::npos)
      << notices.text();
}

TEST(GroupScorer, ReportsEveryProblemOfARecipe) {
  configs::RewardConfig config;
  config.parts = {Named(TestPart("anwser"), "a"), Named(TestPart("length"), "a"),
                  Named(TestPart("plugin", "/nonexistent.so"), "b")};
  try {
    GroupScorer scorer(config, TestHost());
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const char* piece :
         {"unknown kind 'anwser', did you mean 'answer'? known: ", " answer, format, ",
          "called 'a'", "target_tokens", "/nonexistent.so"}) {
      EXPECT_NE(text.find(piece), std::string::npos) << piece << " in " << text;
    }
  }
  EXPECT_THROW(GroupScorer(configs::RewardConfig{}), Error) << "no parts";
}

TEST(GroupScorer, ServesManyThreads) {
  configs::RewardConfig config;
  auto part = TestPart("plugin", PluginPath("keyword_reward"));
  part.workers = 2;
  part.timeout_s = 10;
  config.parts = {part};
  GroupScorer scorer(config, TestHost());
  std::vector<std::jthread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string word(static_cast<size_t>(t + 3), 'w');
        TrajectoryGroup group = TestGroup({word, "none"}, word, "", static_cast<uint64_t>(i));
        scorer.Score(group);
        right += group.trajectories[0].reward == 1 && group.trajectories[1].reward == 0;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(right, 120);
  EXPECT_EQ(scorer.Counters().at("reward/groups"), 120u);
}

TEST(GroupScorer, ScoresManyGroupsSideBySideAndTellsHowLong) {
  configs::RewardConfig config;
  auto part =
      TestPart("program", "sh",
               {"-c", R"(while IFS= read -r line; do id=${line#'{"id":'}; id=${id%%,*}; sleep 0.1
                                             printf '{"id":%s,"score":1}\n' "$id"; done)"});
  part.workers = 4;
  config.parts = {part, Named(TestPart("format"), "shape")};
  GroupScorer scorer(config, TestHost());
  std::vector<TrajectoryGroup> groups;
  for (uint64_t i = 0; i < 16; ++i) groups.push_back(TestGroup({"a"}, "", "", i));
  const auto start = std::chrono::steady_clock::now();
  scorer.ScoreMany(groups);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1500))
      << "four at a time, not one";
  for (const TrajectoryGroup& group : groups)
    EXPECT_TRUE(group.trajectories[0].scored) << group.trajectories[0].unscored_reason;
  const auto latencies = scorer.Latencies();
  EXPECT_GE(latencies.at("reward/code/latency_p50"), 0.1);
  EXPECT_GE(latencies.at("reward/code/latency_p99"), latencies.at("reward/code/latency_p50"));
  EXPECT_LT(latencies.at("reward/shape/latency_p99"), 0.1);
}

TEST(GroupScorer, ManyGroupsEndWithTheErrorOfOne) {
  Notices notices;
  configs::RewardConfig config;
  auto part = TestPart("plugin", PluginPath("segv"));
  part.workers = 2;
  config.parts = {part};
  config.retries = 0;
  GroupScorer scorer(config, TestHost());
  std::vector<TrajectoryGroup> groups;
  for (int i = 0; i < 16; ++i) groups.push_back(TestGroup({"bad " + std::to_string(i)}));
  EXPECT_THROW(scorer.ScoreMany(groups), FunctionDisabled);
}

class SlowWorker : public Worker {
 public:
  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline, bool*) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return std::vector<PartScore>(group.trajectories.size(), PartScore::Of(1));
  }
};

TEST(WorkerPool, AQueueThatDoesNotMoveIsAFailureWithAReason) {
  PoolOptions options;
  options.name = "slow";
  WorkerPool pool(options, [](int) { return std::make_unique<SlowWorker>(); });
  const TrajectoryGroup group = TestGroup({"a"});
  std::jthread first([&] { pool.Run(group, After(std::chrono::seconds(5))); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto scores = pool.Run(group, After(std::chrono::milliseconds(50)));
  EXPECT_EQ(scores[0].failure, Failure::kTimeout);
}

TEST(Sandbox, MissingNamespacesAreAnErrorUnlessAllowed) {
  // The skip has to be asked for by name: a machine without namespaces must not pass silently.
  if (std::getenv("PLUMB_SKIP_NAMESPACE_TESTS") == nullptr) {
    EXPECT_EQ(ProbeNamespaces(), std::nullopt);
  }
  SandboxOptions options;
  if (!ProbeNamespaces()) {
    EXPECT_EQ(NamespaceCommand(options)[0], "bwrap");
  } else {
    EXPECT_THROW(NamespaceCommand(options), Error);
    options.allow_unsandboxed = true;
    EXPECT_TRUE(NamespaceCommand(options).empty());
  }
  EXPECT_FALSE(SeccompFilter(SeccompProfile::kSharedObject, false).empty());
  EXPECT_GT(SeccompFilter(SeccompProfile::kSharedObject, false).size(),
            SeccompFilter(SeccompProfile::kProgram, true).size());
}

}  // namespace
}  // namespace plumb::reward
