// A table whose batches grow (optimizer.ramp_steps): each step has the leases behind those of the
// step before, whichever way steps and leases are numbered back and forth.
#include <set>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

TableOptions Ramped(bool sync) {
  TableOptions o;
  o.steps = 6;
  o.prompts_per_step = 4;
  o.ramp_steps = 3;  // 1, 2, 3, then 4
  o.ramp_start = 0.25;
  o.samples_per_prompt = 2;
  o.sync = sync;
  o.max_staleness = sync ? 0 : 1;
  return o;
}

constexpr int64_t kSizes[] = {1, 2, 3, 4, 4, 4};

TEST(TableRampTest, EachStepHasItsOwnLeases) {
  for (const bool sync : {true, false}) {
    const TempFolder folder;
    uint64_t first = 0;
    std::set<uint64_t> trained;
    for (int64_t step = 0; step < 6; ++step) {
      // Another life of the store for every step.
      const auto store = OpenStore(folder / "store");
      store->PutPrompts(kTrainDataset, SomePrompts(10));
      ReplayTable table(store.get(), Ramped(sync));
      if (step > 0) {
        EXPECT_EQ(table.Resume({step, store->Sequence()}), 0);
      }
      try {
        table.Next(step, After(0ms));  // asks for it
        EXPECT_FALSE(sync);            // under async it may be there already
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kDeadline) << e.what();
      }
      const std::string missing = table.Describe();
      EXPECT_NE(missing.find("of " + std::to_string(kSizes[step])), std::string::npos) << missing;
      for (const PromptLease& lease : table.Lease(100, After(0ms))) {
        if (sync) {
          EXPECT_EQ(lease.policy_version, step);
          EXPECT_GE(lease.lease_id, first);
          EXPECT_LT(lease.lease_id, first + static_cast<uint64_t>(kSizes[step]));
        }
        EXPECT_EQ(table.Insert(Answer(lease, step)), InsertResult::kInserted);
      }
      const auto batch = table.Next(step, After(0ms));
      ASSERT_EQ(static_cast<int64_t>(batch.size()), kSizes[step]) << sync;
      for (const TrajectoryGroup& group : batch)
        EXPECT_TRUE(trained.insert(group.lease.lease_id).second) << "twice";
      first += static_cast<uint64_t>(kSizes[step]);
      if (step == 4) {
        table.Trim(3);
        EXPECT_EQ(store->TrimmedBefore(Purpose::kTrain), 6u);
      }
    }
    EXPECT_EQ(trained.size(), 18u);
  }
}

// The prompts that a sampler draws for a step are as many as its leases.
TEST(TableRampTest, SampledPromptsAreAsManyAsTheStepHas) {
  const TempFolder folder;
  const auto store = OpenStore(folder / "store");
  store->PutPrompts(kTrainDataset, SomePrompts(10));
  TableOptions options = Ramped(true);
  options.planner.prompts = PromptSampler::kUniform;
  ReplayTable table(store.get(), options);
  for (int64_t step = 0; step < 6; ++step) {
    EXPECT_THROW(table.Next(step, After(0ms)), Error);
    const auto leases = table.Lease(100, After(0ms));
    EXPECT_EQ(static_cast<int64_t>(leases.size()), kSizes[step]);
    EXPECT_EQ(store->ReadPlan(step)->prompt_rows.size(), leases.size());
    for (const PromptLease& lease : leases) table.Insert(Answer(lease, step));
  }
}

}  // namespace
}  // namespace plumb::replay
