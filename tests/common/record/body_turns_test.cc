#include "common/record/body_turns.h"

#include <gtest/gtest.h>

#include <limits>

#include "common/base/error.h"
#include "common/record/group_body.h"

namespace plumb {
namespace {

TrajectoryGroup Conversation() {
  TrajectoryGroup g;
  g.lease.lease_id = 3;
  g.lease.num_samples = 1;
  g.lease.prompt.dataset = "train";
  g.lease.prompt.tokens = {1, 2};
  g.policy = {0, std::string(32, 'a')};
  Trajectory t;
  t.tokens = {1, 2, 3, 4, 5, 6};
  t.segments = {{Origin::kPrompt, 0, 2},
                {Origin::kPolicy, 2, 3},
                {Origin::kEnvironment, 3, 5},
                {Origin::kPolicy, 5, 6}};
  t.loss_mask = {0, 0, 1, 0, 0, 1};
  t.logprobs = {0, 0, -1, 0, 0, -2};
  t.policy_versions = {-1, -1, 0, -1, -1, 0};
  t.turns = {{.segment = 1, .reward = -0.5, .called = true, .failed_call = true},
             {.segment = 3, .reward = std::nullopt}};
  g.trajectories = {t};
  return g;
}

TEST(BodyTurns, AreAsTheyWere) {
  const TrajectoryGroup group = Conversation();
  CheckInvariants(group);
  const GroupBody opened = GroupBody::Open(GroupBody::Seal(group).bytes());
  EXPECT_EQ(opened.Unpack().trajectories, group.trajectories);
  EXPECT_EQ(opened.ForScoring().trajectories[0].turns, group.trajectories[0].turns)
      << "rewards read them";
  EXPECT_EQ(group.trajectories[0].policy_length(), 2);
}

TEST(BodyTurns, TurnsOfOtherSegmentsAreRefused) {
  const auto broken = [](auto change) {
    TrajectoryGroup group = Conversation();
    change(group.trajectories[0].turns);
    EXPECT_THROW(CheckInvariants(group), Error);
    EXPECT_THROW(GroupBody::Open(GroupBody::Seal(group).bytes()), Error);
  };
  broken([](std::vector<Turn>& turns) { turns[0].segment = 2; });
  broken([](std::vector<Turn>& turns) { turns[0].segment = 0; });
  broken([](std::vector<Turn>& turns) { turns[1].segment = 4; });
  broken([](std::vector<Turn>& turns) { turns[1].segment = -1; });
  broken([](std::vector<Turn>& turns) { std::swap(turns[0], turns[1]); });
  broken(
      [](std::vector<Turn>& turns) { turns[0].reward = std::numeric_limits<double>::infinity(); });
}

}  // namespace
}  // namespace plumb
