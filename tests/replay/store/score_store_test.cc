// replay/store/store.h: later scores, plans of steps and the end of evaluations
// (replay/store/score_store.cc).
#include "replay/table/leases.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

GroupScore SomeScore(double reward) {
  return {.answers = {{.reward = reward,
                       .parts = {{"short", reward, 2.0, RewardScope::kTrajectory, 0, "digest"}}},
                      {.reward = -reward, .parts = {}}}};
}

TEST(ScoreStore, AScoreStandsBesideTheGroupAndIsNeverReplaced) {
  const TempFolder folder;
  {
    const auto store = OpenStore(folder / "s");
    ASSERT_EQ(store->Insert(PlainGroup(5)), InsertResult::kInserted);
    store->DescribeScore("aa11", "1 * short");
    EXPECT_TRUE(store->PutScore(Purpose::kTrain, 5, "aa11", SomeScore(0.5)));
    EXPECT_FALSE(store->PutScore(Purpose::kTrain, 5, "aa11", SomeScore(0.75)));
    EXPECT_TRUE(store->PutScore(Purpose::kTrain, 5, "aa22", SomeScore(0.75)));
    store->DescribeScore("aa22", "2 * short");
    store->DescribeScore("aa22", "2 * short");
    EXPECT_THROWS(ErrorCode::kConflict, "something else",
                  store->DescribeScore("aa22", "3 * short"));
    store->SyncScores();
  }
  const auto store = OpenStore(folder / "s");
  EXPECT_EQ(store->ReadScore(Purpose::kTrain, 5, "aa11"), SomeScore(0.5));
  EXPECT_EQ(store->ReadScore(Purpose::kTrain, 5, "aa22"), SomeScore(0.75));
  EXPECT_EQ(store->ReadScore(Purpose::kEval, 5, "aa11"), std::nullopt);
  EXPECT_EQ(store->Read(Purpose::kTrain, 5)->group, PlainGroup(5));  // as it was
  EXPECT_EQ(store->FindScore("aa2"), "aa22");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "several scores", store->FindScore("aa"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "2 * short", store->FindScore("b"));
  const VerifyReport report = store->Verify();
  EXPECT_EQ(report.scores, 2u);
  EXPECT_TRUE(report.problems.empty());
  store->Trim(Purpose::kTrain, 6);
  EXPECT_EQ(store->ReadScore(Purpose::kTrain, 5, "aa11"), std::nullopt);
}

TEST(ScoreStore, PlansComeBackAndOldOnesGo) {
  const TempFolder folder;
  const StepPlan plan{
      .prompt_rows = {4, 9, 4}, .drawn = true, .replayed = {1, 2}, .total_replayed = 17};
  {
    const auto store = OpenStore(folder / "s");
    for (int64_t step = 0; step < 5; ++step) store->PutPlan(step, plan);
    store->PutPlan(4, {.prompt_rows = {1}});
  }
  const auto store = OpenStore(folder / "s");
  EXPECT_EQ(store->ReadPlan(3), plan);
  EXPECT_EQ(store->ReadPlan(4), (StepPlan{.prompt_rows = {1}}));
  EXPECT_EQ(store->ReadPlan(5), std::nullopt);
  store->PutPlan(6, {.chosen = {9, 3}});
  EXPECT_EQ(store->ReadPlan(6), (StepPlan{.chosen = {9, 3}}));
  store->TrimPlans(3);
  EXPECT_EQ(store->ReadPlan(2), std::nullopt);
  EXPECT_EQ(store->Plans(), (std::map<int64_t, StepPlan>{
                                {3, plan}, {4, {.prompt_rows = {1}}}, {6, {.chosen = {9, 3}}}}));
  EXPECT_EQ(store->ReadPlan(3), plan);
}

TEST(ScoreStore, OldEvaluationsGoWithTheirGroups) {
  const TempFolder folder;
  const auto store = OpenStore(folder / "s");
  for (const int64_t version : {0, 3, 6}) {
    store->PutEvaluation(version, 2, 1);
    ASSERT_EQ(store->Insert(PlainGroup(EvalLeaseBase(version, 2), Purpose::kEval)),
              InsertResult::kInserted);
  }
  store->TrimEvaluations(6);
  ASSERT_EQ(store->Evaluations().size(), 1u);
  EXPECT_EQ(store->Evaluations()[0].version, 6);
  EXPECT_EQ(store->Read(Purpose::kEval, EvalLeaseBase(3, 2)), std::nullopt);
  EXPECT_TRUE(store->Read(Purpose::kEval, EvalLeaseBase(6, 2)).has_value());
  EXPECT_TRUE(store->Verify().problems.empty());
}

}  // namespace
}  // namespace plumb::replay
