// A store of before groups were sealed bodies: everything in it is read, and a run goes on in it.
#include <gtest/gtest.h>

#include "replay/datasets/dump.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/old_store.h"

namespace plumb::replay {
namespace {

void Restore(const std::string& folder) {
  RocksFolder rocks;
  rocks.Open(folder, {});
  rocksdb::WriteBatch batch;
  for (const auto& [name, key, value] : plumb::testing::OldStoreRecords()) {
    for (int i = 0; i < kFamilies; ++i) {
      const auto family = static_cast<Family>(i);
      if (FamilyName(family) == name) batch.Put(rocks.handle(family), key, value);
    }
  }
  ASSERT_EQ(batch.Count(), 26);
  rocks.Write(batch, /*sync=*/true);
}

TEST(OldStore, GroupsScoresPromptsAndPairsAreRead) {
  TempFolder folder(InMemory());
  Restore(folder / "s");
  const auto store = OpenStore(folder / "s");
  EXPECT_EQ(store->Sequence(), 4u);
  const auto first = store->Read(Purpose::kTrain, 0);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->kind, GroupKind::kGroup);
  TrajectoryGroup expected = PlainGroup(0);
  expected.trajectories[0].kept = {0, 0, 0, 2, 3, 0};
  expected.trajectories[1].scored = false;
  expected.trajectories[1].reward = 0;
  expected.trajectories[1].rewards.clear();
  expected.trajectories[1].unscored_reason = "timeout";
  EXPECT_EQ(first->group, expected);
  const auto dropped = store->Read(Purpose::kTrain, 1);
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->kind, GroupKind::kDropped);
  EXPECT_EQ(dropped->drop_reason, "timeout");
  EXPECT_EQ(dropped->group.trajectories.at(1).unscored_reason, "its group was dropped: timeout");
  EXPECT_EQ(store->Read(Purpose::kTrain, 2)->group, PlainGroup(2));
  EXPECT_EQ(store->Read(Purpose::kEval, 7)->group, PlainGroup(7, Purpose::kEval));
  const auto score = store->ReadScore(Purpose::kTrain, 2, "aa11");
  ASSERT_TRUE(score);
  EXPECT_EQ(score->answers.at(0),
            (ScoredAnswer{.reward = 0.5,
                          .parts = {{"short", 0.25, 2.0, RewardScope::kTrajectory, 0, "digest"}}}));
  EXPECT_EQ(score->answers.at(1).reward, -0.5);
  EXPECT_EQ(store->ReadPrompt(kTrainDataset, 1).messages.at(0).content, "hi");
  EXPECT_EQ(store->ReadPreferences("pairs", 0, 1).at(0).margin, 0.5);
  const VerifyReport report = store->Verify();
  EXPECT_EQ(report.problems, std::vector<std::string>());
  EXPECT_EQ(report.groups, 4u);
}

TEST(OldStore, TheHeadOfAGroupIsTheSameInBothFormsAndNewOnesAreNotUnpackedForIt) {
  TempFolder folder(InMemory());
  Restore(folder / "s");
  const auto store = OpenStore(folder / "s");
  TrajectoryGroup group = Answer(PlainLease(3), 5);
  for (Trajectory& t : group.trajectories) t.policy_versions.back() = 4;
  ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
  const auto unpacked = GroupBody::counts().unpacked;
  const auto before = store->ReadHead(Purpose::kTrain, 2),
             now = store->ReadHead(Purpose::kTrain, 3);
  EXPECT_EQ(GroupBody::counts().unpacked, unpacked);
  ASSERT_TRUE(before && now);
  EXPECT_EQ(before->lease.lease_id, 2u);
  EXPECT_EQ(before->run_id, "run");
  EXPECT_EQ(before->policy, PlainGroup(2).policy);
  EXPECT_EQ(before->oldest_version, 0);
  EXPECT_EQ(before->answers.size(), 2u);
  EXPECT_EQ(now->lease.lease_id, 3u);
  EXPECT_EQ(now->run_id, "run");
  EXPECT_EQ(now->policy, group.policy);
  EXPECT_EQ(now->oldest_version, 4);
  EXPECT_EQ(now->answers.size(), 2u);
  EXPECT_FALSE(store->ReadHead(Purpose::kTrain, 4));
}

TEST(OldStore, ARunGoesOnInIt) {
  TempFolder folder(InMemory());
  Restore(folder / "s");
  {
    const auto store = OpenStore(folder / "s");
    TableOptions options;
    options.steps = 3;
    options.prompts_per_step = 2;
    options.samples_per_prompt = 2;
    ReplayTable table(store.get(), options);
    EXPECT_THROW(table.Next(1, Deadline{}),
                 Error);  // lease 3 is open; what the old store holds of the step is there
    const auto leases = table.Lease(4, After(std::chrono::seconds(5)));
    ASSERT_EQ(leases.size(), 1u);
    EXPECT_EQ(leases[0].lease_id, 3u);
    EXPECT_EQ(table.Insert(Answer(leases[0], 1)), InsertResult::kInserted);
    const auto batch = table.Next(1, After(std::chrono::seconds(5)));
    ASSERT_EQ(batch.size(), 2u);
    EXPECT_EQ(batch[0], PlainGroup(2)) << "of before";
    EXPECT_EQ(DecodeBatch(*table.TryNext(1)), batch) << "and to another process";
    GroupScore again;
    again.answers.resize(2);
    EXPECT_TRUE(store->PutScore(Purpose::kTrain, 2, "bb22", again));
  }
  const auto store = OpenStore(folder / "s");
  EXPECT_EQ(store->Sequence(), 5u);
  EXPECT_TRUE(store->Verify().problems.empty());
}

}  // namespace
}  // namespace plumb::replay
