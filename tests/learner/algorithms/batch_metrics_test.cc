#include "learner/algorithms/batch_metrics.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/learner/algorithms/ppo_rig.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

Trajectory Conversation(int calls, int failed) {
  Trajectory t;
  t.segments = {{Origin::kPrompt, 0, 3}};
  int32_t at = 3;
  for (int i = 0; i <= calls; ++i) {
    t.segments.push_back({Origin::kPolicy, at, at + 2});
    t.turns.push_back({.segment = static_cast<int32_t>(t.segments.size()) - 1,
                       .reward = std::nullopt,
                       .called = i < calls,
                       .failed_call = i < failed});
    at += 2;
    if (i == calls) break;
    t.segments.push_back({Origin::kEnvironment, at, at + 10});
    at += 10;
  }
  t.tokens.assign(static_cast<size_t>(at), 1);
  t.scored = true;
  t.rewards = {
      {.name = "game", .value = 3, .weight = 0},
      {.name = "game", .value = 1, .weight = 1, .scope = RewardScope::kSegment, .index = 1},
      {.name = "game", .value = 2, .weight = 1, .scope = RewardScope::kSegment, .index = 1}};
  t.reward = 3;
  return t;
}

TEST(BatchMetrics, TurnsAndCallsOfConversations) {
  TrajectoryGroup group;
  group.trajectories = {Conversation(3, 1), Conversation(1, 0)};
  std::map<std::string, double> metrics;
  AddBatchMetrics(std::span(&group, 1), metrics);
  EXPECT_EQ(metrics.at("turns/mean"), 3);
  EXPECT_EQ(metrics.at("tools/call_frequency"), 2);
  EXPECT_EQ(metrics.at("tools/failure_frequency"), 0.25);
  EXPECT_EQ(metrics.at("response_length/mean"), 6) << "what the environment said is no length";
  EXPECT_EQ(metrics.at("response_length/max"), 8);
  EXPECT_EQ(metrics.at("reward/game/mean"), 3);
}

TEST(BatchMetrics, NoneWithoutAnEnvironment) {
  TrajectoryGroup group;
  group.trajectories = {Conversation(0, 0)};
  group.trajectories[0].turns.clear();
  std::map<std::string, double> metrics;
  AddBatchMetrics(std::span(&group, 1), metrics);
  EXPECT_FALSE(metrics.contains("turns/mean"));
  EXPECT_FALSE(metrics.contains("tools/call_frequency"));
}

TEST(BatchMetricsTest, CountsWhatIsNotScored) {
  Rig rig(PpoConfig("own"));
  auto groups = RandomGroups(2, 4, 9, rig.train, rig.weights, 0);
  for (auto& t : groups[0].trajectories) t.reward = 1;
  groups[1].trajectories[0].scored = false;
  groups[1].trajectories[1].finish = FinishReason::kLength;
  std::map<std::string, double> metrics;
  AddBatchMetrics(groups, metrics);
  EXPECT_EQ(metrics.at("reward/unscored"), 1);
  EXPECT_GE(metrics.at("reward/zero_std_groups"), 1);
  EXPECT_DOUBLE_EQ(metrics.at("response_length/clipped"), 1.0 / 8);
  EXPECT_GT(metrics.at("response_length/max"), metrics.at("response_length/min"));
  EXPECT_EQ(metrics.count("reward/correct/mean"), 1u);
}

}  // namespace
}  // namespace plumb::learner
