// replay/table/step_planner.h under a table: what is drawn, that a restart draws the same, and what
// trimming leaves.
#include "replay/table/step_planner.h"

#include <map>
#include <set>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

constexpr int64_t kPerStep = 4;

TableOptions Options(PlannerOptions planner) {
  TableOptions o;
  o.steps = 40;
  o.prompts_per_step = kPerStep;
  o.samples_per_prompt = 2;
  o.planner = std::move(planner);
  return o;
}

struct Ring {
  explicit Ring(PlannerOptions planner) : options(Options(std::move(planner))) { Reopen(); }
  void Reopen() {
    table.reset();
    store.reset();
    store = OpenStore(folder / "store");
    auto prompts = SomePrompts(20);
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].extra_json = "{\"source\": \"" + std::string(i < 16 ? "large" : "small") +
                              "\", \"level\": " + std::to_string(i % 5) + "}";
    }
    store->PutPrompts(kTrainDataset, prompts);
    table = std::make_unique<ReplayTable>(store.get(), options);
  }
  // Answers the step; answers of rows below `solved_below` are all right, of others the first of
  // two.
  std::vector<TrajectoryGroup> Step(int64_t step, uint64_t solved_below = 0) {
    EXPECT_FALSE(table->TryNext(step).has_value());
    for (const PromptLease& lease : table->Lease(100, After(0ms))) {
      TrajectoryGroup group = Answer(lease, step);
      if (lease.prompt.row < solved_below) {
        for (Trajectory& t : group.trajectories) t.reward = t.rewards[0].value = 1;
      }
      EXPECT_EQ(table->Insert(group), InsertResult::kInserted);
    }
    return table->Next(step, After(0ms));
  }

  TempFolder folder;
  TableOptions options;
  std::unique_ptr<Store> store;
  std::unique_ptr<ReplayTable> table;
};

// What a step was given, but for the clock of its leases.
std::vector<TrajectoryGroup> Timeless(std::vector<TrajectoryGroup> groups) {
  for (TrajectoryGroup& group : groups) group.lease.deadline_ms = 0;
  return groups;
}

std::vector<uint64_t> Ids(const std::vector<TrajectoryGroup>& groups) {
  std::vector<uint64_t> ids;
  for (const TrajectoryGroup& g : groups) ids.push_back(g.lease.lease_id);
  return ids;
}

TEST(StepPlanner, EarlierGroupsComeBehindTheStepsOwnWithinTheirBounds) {
  Ring ring({.groups_per_step = 3,
             .remover = {.max_steps = 2, .max_times_sampled = 1},
             .limiter = {.samples_per_insert = 0.5}});
  std::map<uint64_t, int> times;
  int64_t total = 0;
  for (int64_t step = 0; step < 12; ++step) {
    const auto groups = ring.Step(step);
    ASSERT_GE(groups.size(), static_cast<size_t>(kPerStep));
    for (size_t i = 0; i < groups.size(); ++i) {
      const auto id = static_cast<int64_t>(groups[i].lease.lease_id);
      if (i < static_cast<size_t>(kPerStep)) {
        EXPECT_EQ(id, step * kPerStep + static_cast<int64_t>(i));
        continue;
      }
      EXPECT_LT(id, step * kPerStep);
      EXPECT_GE(id, (step - 2) * kPerStep);
      EXPECT_EQ(++times[static_cast<uint64_t>(id)], 1);  // max_times_sampled
      ++total;
    }
    EXPECT_LE(static_cast<double>(total), 0.5 * static_cast<double>(step * kPerStep));
  }
  EXPECT_EQ(total, 22);  // 0.5 for each of the 44 groups before the last step
  EXPECT_EQ(ring.table->Counters().at("replay/drawn"), total);
  EXPECT_EQ(ring.table->Counters().at("replay/short"), 12 * 3 - total);
}

TEST(StepPlanner, ARestartAndASecondQuestionDrawTheSame) {
  const PlannerOptions planner{.prompts = PromptSampler::kDifficulty,
                               .groups_per_step = 2,
                               .sampler = {.kind = SamplerKind::kPrioritised},
                               .remover = {.max_steps = 3},
                               .history_steps = 5};
  Ring whole(planner), broken(planner);
  for (int64_t step = 0; step < 10; ++step) {
    const auto groups = whole.Step(step, 10);
    if (step % 3 == 2) broken.Reopen();
    EXPECT_EQ(Timeless(broken.Step(step, 10)), Timeless(groups));
    EXPECT_EQ(whole.table->Next(step, After(0ms)), groups);
  }
  // A learner that goes back to a checkpoint gets what it got, though the store knows more by now.
  const auto then = whole.table->Next(9, After(0ms));
  whole.Reopen();
  const auto again = whole.table->Next(6, After(0ms));
  EXPECT_EQ(Ids(again), Ids(broken.table->Next(6, After(0ms))));
  EXPECT_EQ(whole.table->Next(9, After(0ms)), then);
}

TEST(StepPlanner, PromptsFollowTheSamplerAndLeasesKeepTheirPrompt) {
  Ring stratified({.prompts = PromptSampler::kStratified, .stratum = "source"});
  for (int64_t step = 0; step < 5; ++step) {
    int small = 0;
    for (const auto& group : stratified.Step(step)) small += group.lease.prompt.row >= 16;
    EXPECT_EQ(small, 2) << step;  // half of each batch, though a fifth of the rows
  }
  Ring curriculum({.prompts = PromptSampler::kCurriculum,
                   .sampler = {.easiest = 0.2, .ramp = 1},
                   .difficulty = "level"});
  // four rows of level 0
  for (const auto& group : curriculum.Step(0)) EXPECT_EQ(group.lease.prompt.row % 5, 0u);
  Ring difficulty(
      {.prompts = PromptSampler::kDifficulty, .sampler = {.floor = 0}, .history_steps = 30});
  std::map<bool, int> late;
  for (int64_t step = 0; step < 30; ++step) {
    for (const auto& group : difficulty.Step(step, 10)) {
      if (step >= 15) ++late[group.lease.prompt.row < 10];
    }
  }
  EXPECT_GT(late[false], 2 * late[true]);  // what is always solved comes less and less often
  Ring refused({.prompts = PromptSampler::kUniform});
  EXPECT_FALSE(refused.table->TryNext(0).has_value());
  TrajectoryGroup other = Answer(refused.table->Lease(1, After(0ms))[0], 0);
  other.lease.prompt.row = (other.lease.prompt.row + 1) % 20;
  EXPECT_EQ(refused.table->Insert(other), InsertResult::kRefused);
  EXPECT_EQ(refused.table->Counters().at("refused/wrong_prompt"), 1);
}

TEST(StepPlanner, TrimmingKeepsWhatLaterDrawsNeed) {
  const PlannerOptions planner{.groups_per_step = 2, .remover = {.max_steps = 3}};
  EXPECT_EQ(StepPlanner::StepsToKeep(planner), 3);
  EXPECT_EQ(StepPlanner::StepsToKeep({}), 0);
  EXPECT_EQ(StepPlanner::StepsToKeep({.prompts = PromptSampler::kDifficulty, .history_steps = 7}),
            7);
  Ring whole(planner), trimmed(planner);
  for (int64_t step = 0; step < 12; ++step) {
    EXPECT_EQ(Timeless(trimmed.Step(step)), Timeless(whole.Step(step)));
    trimmed.table->Trim(std::max<int64_t>(0, step - 3));
    if (step == 8) trimmed.Reopen();
  }
  EXPECT_EQ(trimmed.store->ReadPlan(5), std::nullopt);
  Ring careless(planner);
  for (int64_t step = 0; step < 6; ++step) careless.Step(step);
  careless.table->Trim(6);
  careless.Reopen();
  EXPECT_THROWS(ErrorCode::kCorruption, "needed to draw from", careless.Step(6));
}

TEST(StepPlanner, ColumnsThatRowsLackAreNamed) {
  Ring missing({.prompts = PromptSampler::kStratified, .stratum = "topic"});
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no column 'topic'", missing.table->TryNext(0));
  Ring text({.prompts = PromptSampler::kCurriculum, .difficulty = "source"});
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no number", text.table->TryNext(0));
}

}  // namespace
}  // namespace plumb::replay
