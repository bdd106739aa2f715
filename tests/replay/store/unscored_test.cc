// What becomes of a group with answers without a score (replay/store/unscored.h), and how a dropped
// one is stored.
#include "replay/store/unscored.h"

#include <gtest/gtest.h>

#include "replay/store/record.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

// One letter an answer: s scored, u without a score, a given up by the actor, A given up and scored
// all the same.
TrajectoryGroup Group(const std::string& answers) {
  TrajectoryGroup group =
      Answer(PlainLease(1, Purpose::kTrain, static_cast<int32_t>(answers.size())), 0);
  for (size_t i = 0; i < answers.size(); ++i) {
    Trajectory& t = group.trajectories[i];
    if (answers[i] == 's') continue;
    if (answers[i] != 'A') t.scored = false;
    if (answers[i] != 'u') t.finish = FinishReason::kAborted;
    t.unscored_reason = (answers[i] == 'u' ? "failed " : "given up ") + std::to_string(i);
  }
  return group;
}

TEST(UnscoredTest, OneVerdictForEveryGroupAndPolicy) {
  struct Case {
    const char* answers;
    Fate keep, drop, requeue;  // by policy
    int64_t unscored, aborted;
    const char *cause, *reason;  // of the policies that do not keep it
  };
  for (const Case& c :
       {Case{"ssss", Fate::kKeep, Fate::kKeep, Fate::kKeep, 0, 0, "", ""},
        Case{"ssus", Fate::kKeep, Fate::kDrop, Fate::kRequeue, 1, 0, "unscored", "failed 2"},
        Case{"sasa", Fate::kKeep, Fate::kKeep, Fate::kKeep, 2, 2, "", ""},
        Case{"sAss", Fate::kKeep, Fate::kKeep, Fate::kKeep, 1, 1, "", ""},
        Case{"saus", Fate::kKeep, Fate::kDrop, Fate::kRequeue, 2, 1, "unscored", "failed 2"},
        Case{"aAaa", Fate::kDrop, Fate::kDrop, Fate::kDrop, 4, 4, "aborted", "given up 0"}}) {
    const TrajectoryGroup group = Group(c.answers);
    for (const auto& [policy, fate] :
         {std::pair(OnFailure::kPenalty, c.keep), std::pair(OnFailure::kDropGroup, c.drop),
          std::pair(OnFailure::kRequeue, c.requeue)}) {
      const Verdict verdict = JudgeScores(ScoresOf(group), policy, 2, 3);
      EXPECT_EQ(verdict.fate, fate) << c.answers;
      EXPECT_EQ(verdict.unscored, c.unscored) << c.answers;
      EXPECT_EQ(verdict.aborted, c.aborted) << c.answers;
      EXPECT_EQ(verdict.cause, fate == Fate::kKeep ? "" : c.cause) << c.answers;
      EXPECT_EQ(verdict.reason, fate == Fate::kKeep ? "" : c.reason) << c.answers;
    }
    if (c.requeue != Fate::kRequeue) continue;
    EXPECT_EQ(JudgeScores(ScoresOf(group), OnFailure::kRequeue, 3, 3).fate, Fate::kDrop)
        << "asked for often enough";
  }
}

TEST(UnscoredTest, OnlyAnswersThatTrainMakeRewardsDiffer) {
  TrajectoryGroup group = Group("ssas");
  for (size_t i = 0; i < 4; ++i) group.trajectories[i].reward = i == 2 ? 5 : 1;
  EXPECT_TRUE(EqualRewards(ScoresOf(group)));
  group.trajectories[3].reward = 0.5;
  EXPECT_FALSE(EqualRewards(ScoresOf(group)));
}

TEST(UnscoredTest, ADroppedGroupIsStoredWithItsAnswersAndReasons) {
  const TempFolder folder(InMemory());
  const auto store = OpenStore(folder / "s");
  ASSERT_EQ(InsertDropped(*store, Group("saus"), "failed 2"), InsertResult::kInserted);
  const StoredGroup read = *store->Read(Purpose::kTrain, 1);
  EXPECT_EQ(read.kind, GroupKind::kDropped);
  EXPECT_EQ(read.drop_reason, "failed 2");
  ASSERT_EQ(read.group.trajectories.size(), 4u);
  for (const Trajectory& t : read.group.trajectories) {
    EXPECT_FALSE(t.scored);
    EXPECT_EQ(t.reward, 0);
  }
  EXPECT_EQ(read.group.trajectories[0].unscored_reason, "its group was dropped: failed 2");
  EXPECT_EQ(read.group.trajectories[0].rewards.size(), 1u) << "what was computed is kept";
  EXPECT_EQ(read.group.trajectories[1].unscored_reason, "given up 1");
}

}  // namespace
}  // namespace plumb::replay
