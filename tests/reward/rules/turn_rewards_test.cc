#include "reward/rules/turn_rewards.h"

#include <gtest/gtest.h>

#include "reward/scorer.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

TrajectoryGroup Conversations() {
  TrajectoryGroup group = TestGroup({"first", "second", "third"});
  for (Trajectory& t : group.trajectories) {
    t.tokens = {1, 2, 3, 4, 5};
    t.segments = {{Origin::kPrompt, 0, 1},
                  {Origin::kPolicy, 1, 2},
                  {Origin::kEnvironment, 2, 4},
                  {Origin::kPolicy, 4, 5}};
    t.turns = {{.segment = 1, .reward = std::nullopt}, {.segment = 3, .reward = std::nullopt}};
  }
  group.lease.num_samples = 3;
  group.trajectories[0].turns[0].reward = 0.25;
  group.trajectories[0].turns[1].reward = 1;
  group.trajectories[1].turns[1].reward = -2;
  return group;
}

configs::RewardConfig Recipe() {
  configs::RewardConfig config;
  config.parts = {TestPart("environment")};
  config.parts[0].name = "game";
  config.parts[0].weight = 2;
  return config;
}

TEST(TurnRewards, TheirSumIsTheAnswersAndEachStandsAtItsTurn) {
  TrajectoryGroup group = Conversations();
  GroupScorer scorer(Recipe(), TestHost());
  scorer.Score(group);
  const Trajectory& first = group.trajectories[0];
  EXPECT_TRUE(first.scored);
  EXPECT_EQ(first.reward, 2 * 1.25);
  ASSERT_EQ(first.rewards.size(), 3u);
  EXPECT_EQ(first.rewards[0].scope, RewardScope::kTrajectory);
  EXPECT_EQ(first.rewards[0].value, 1.25);
  EXPECT_EQ(first.rewards[1].scope, RewardScope::kSegment);
  EXPECT_EQ(first.rewards[1].index, 1);
  EXPECT_EQ(first.rewards[2].index, 3);
  double sum = 0;
  for (const RewardPart& part : first.rewards) sum += part.weight * part.value;
  EXPECT_EQ(sum, first.reward) << "once, not twice";
  EXPECT_EQ(group.trajectories[1].reward, -4);
  EXPECT_TRUE(group.trajectories[2].scored) << "an environment that said nothing gave nothing";
  EXPECT_EQ(group.trajectories[2].reward, 0);
}

TEST(TurnRewards, AnAnswerWithoutAnEnvironmentIsNoneOfItsBusiness) {
  TrajectoryGroup group = TestGroup({"alone"});
  group.lease.num_samples = 1;
  GroupScorer scorer(Recipe(), TestHost());
  scorer.Score(group);
  EXPECT_FALSE(group.trajectories[0].scored);
  EXPECT_NE(group.trajectories[0].unscored_reason.find("no reward part applies"),
            std::string::npos);
}

}  // namespace
}  // namespace plumb::reward
