// Combination and failure policy (reward/scorer.h), the pool (worker_pool.h) and the walls' probing (sandbox.h).
#include "reward/scorer.h"

#include <gtest/gtest.h>
#include <linux/filter.h>

#include <thread>

#include "reward/sandbox.h"
#include "reward/worker_pool.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

configs::RewardPartConfig Named(configs::RewardPartConfig part, const std::string& name, double weight = 1) {
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
  config.parts = {Named(TestPart("plugin", PluginPath("reported")), "code"), Named(TestPart("format"), "shape")};
  config.retries = 1;
  for (const char* policy : {"drop_group", "requeue", "penalty"}) {
    config.on_failure = policy;
    config.penalty = -1.5;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"bad", "<think>a</think><answer>good</answer>"});
    const Outcome outcome = scorer.ScoreGroup(group);
    const auto counters = scorer.Counters();
    EXPECT_EQ(counters.at("reward/failed/code/reported"), 2u) << "each attempt counts";
    EXPECT_EQ(counters.at("reward/retries"), 1u);
    if (config.on_failure == "penalty") {
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
      EXPECT_EQ(outcome, config.on_failure == "requeue" ? Outcome::kRequeue : Outcome::kDropGroup);
      for (const Trajectory& t : group.trajectories) {
        EXPECT_FALSE(t.scored);
        EXPECT_NE(t.unscored_reason.find("cannot read this"), std::string::npos) << t.unscored_reason;
      }
      EXPECT_EQ(group.trajectories[1].rewards.size(), 2u) << "what was computed is kept";
    }
  }
}

TEST(GroupScorer, ReportsEveryProblemOfARecipe) {
  configs::RewardConfig config;
  config.on_failure = "ignore";
  config.parts = {Named(TestPart("anwser"), "a"), Named(TestPart("length"), "a"),
                  Named(TestPart("plugin", "/nonexistent.so"), "b")};
  try {
    GroupScorer scorer(config, TestHost());
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const char* piece : {"ignore", "unknown kind 'anwser', did you mean 'answer'? known: ", " answer, format, ", "called 'a'", "target_tokens",
                              "/nonexistent.so"}) {
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
  auto part = TestPart("program", "sh", {"-c", R"(while IFS= read -r line; do id=${line#'{"id":'}; id=${id%%,*}; sleep 0.1
                                             printf '{"id":%s,"score":1}\n' "$id"; done)"});
  part.workers = 4;
  config.parts = {part, Named(TestPart("format"), "shape")};
  GroupScorer scorer(config, TestHost());
  std::vector<TrajectoryGroup> groups;
  for (uint64_t i = 0; i < 16; ++i) groups.push_back(TestGroup({"a"}, "", "", i));
  const auto start = std::chrono::steady_clock::now();
  scorer.ScoreMany(groups);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1500)) << "four at a time, not one";
  for (const TrajectoryGroup& group : groups) EXPECT_TRUE(group.trajectories[0].scored) << group.trajectories[0].unscored_reason;
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
  EXPECT_EQ(pool.Stalls(std::chrono::milliseconds(10)).size(), 1u);
}

TEST(Sandbox, MissingNamespacesAreAnErrorUnlessAllowed) {
  // The skip has to be asked for by name: a machine without namespaces must not pass silently.
  if (std::getenv("PLUMB_SKIP_NAMESPACE_TESTS") == nullptr) {
    EXPECT_EQ(ProbeNamespaces(), "");
  }
  SandboxOptions options;
  if (ProbeNamespaces().empty()) {
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
