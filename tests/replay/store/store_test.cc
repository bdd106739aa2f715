#include "replay/store/store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "tests/replay/faulty_disk.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(StoreTest, GivesBackWhatWasInserted) {
  TempFolder folder;
  const TrajectoryGroup group = PlainGroup(7);
  {
    auto store = OpenStore(folder / "store");
    EXPECT_EQ(store->Insert(group), InsertResult::kInserted);
    EXPECT_EQ(store->Read(Purpose::kTrain, 7)->group, group);
    EXPECT_FALSE(store->Read(Purpose::kEval, 7).has_value());  // the purpose is part of the key
  }
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(store->Read(Purpose::kTrain, 7)->group, group);
  EXPECT_TRUE(store->Contains(Purpose::kTrain, 7));
  EXPECT_EQ(store->Counters()["inserts"], 1);
}

// Each family that is made by itself costs a file of options, written, synced, read back and
// renamed: then there are 86.
TEST(StoreTest, ANewStoreCostsFewOperationsOfTheDisk) {
  TempFolder folder(InMemory());
  FaultyDisk disk;
  Store::Open(folder / "store", {.run_id = "run", .env_for_test = disk.env()});
  EXPECT_LT(disk.operations(), 70);
}

TEST(StoreTest, InsertIsIdempotentOverRestarts) {
  TempFolder folder;
  {
    auto store = OpenStore(folder / "store");
    EXPECT_EQ(store->Insert(PlainGroup(1)), InsertResult::kInserted);
    TrajectoryGroup later = PlainGroup(1);
    later.lease.attempt = 3;
    later.actor = "actor-9";
    EXPECT_EQ(store->Insert(later), InsertResult::kDuplicate);
    EXPECT_EQ(store->Read(Purpose::kTrain, 1)->group.actor, "actor-0");  // the first one stays
  }
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(store->Insert(PlainGroup(1)), InsertResult::kDuplicate);
  EXPECT_EQ(store->Counters()["duplicates"], 2);
  EXPECT_EQ(store->Counters()["inserts"], 1);
  EXPECT_EQ(store->Sequence(), 1u);
}

TEST(StoreTest, OneOfManyConcurrentInsertsOfAKeyWins) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  std::atomic<int> inserted{0}, duplicate{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (uint64_t id = 0; id < 20; ++id) {
        (store->Insert(PlainGroup(id)) == InsertResult::kInserted ? inserted : duplicate)++;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(inserted, 20);
  EXPECT_EQ(duplicate, 100);
  EXPECT_EQ(store->Ids(Purpose::kTrain, 0, 100).size(), 20u);
}

TEST(StoreTest, SeveralGroupsInOneCall) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  store->Insert(PlainGroup(2));
  TrajectoryGroup foreign = PlainGroup(9);
  foreign.run_id = "another";
  const std::vector<TrajectoryGroup> groups = {PlainGroup(1), PlainGroup(2), PlainGroup(3),
                                               PlainGroup(3), foreign};
  const std::vector<InsertResult> expected = {InsertResult::kInserted, InsertResult::kDuplicate,
                                              InsertResult::kInserted, InsertResult::kDuplicate,
                                              InsertResult::kRefused};
  EXPECT_EQ(store->Insert(groups), expected);
  EXPECT_EQ(store->Counters()["refused/other_run"], 1);
  EXPECT_FALSE(store->Contains(Purpose::kTrain, 9));
}

TEST(StoreTest, RefusesAGroupThatDoesNotHoldTogether) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  TrajectoryGroup group = PlainGroup(1);
  group.trajectories[1].logprobs.pop_back();
  EXPECT_THROWS(ErrorCode::kCorruption, "logprobs", store->Insert(group));
  EXPECT_FALSE(store->Contains(Purpose::kTrain, 1));
}

TEST(StoreTest, ADroppedGroupCompletesTheLease) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(InsertDropped(*store, PlainGroup(4), "timeout"), InsertResult::kInserted);
  const auto stored = store->Read(Purpose::kTrain, 4);
  EXPECT_EQ(stored->kind, GroupKind::kDropped);
  EXPECT_EQ(stored->drop_reason, "timeout");
  ASSERT_EQ(stored->group.trajectories.size(), 2u);
  for (const Trajectory& t : stored->group.trajectories) EXPECT_FALSE(t.scored);
  EXPECT_EQ(stored->group.lease, PlainLease(4));
  EXPECT_EQ(store->Insert(PlainGroup(4)), InsertResult::kDuplicate);
}

TEST(StoreTest, PromptsAreStoredOnceAndNeverChange) {
  TempFolder folder;
  {
    auto store = OpenStore(folder / "store");
    store->PutPrompts("train", SomePrompts(50));
    store->PutPrompts("train", SomePrompts(50));
    EXPECT_THROWS(ErrorCode::kConflict, "50 then, 49 now",
                  store->PutPrompts("train", SomePrompts(49)));
    EXPECT_THROWS(ErrorCode::kInvalidArgument, "no rows", store->PutPrompts("eval", {}));
  }
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(store->PromptCount("train"), 50u);
  EXPECT_EQ(store->PromptCount("eval"), 0u);
  EXPECT_EQ(store->ReadPrompt("train", 49).text, "question 49");
  EXPECT_EQ(store->ReadPrompt("train", 49).row, 49u);
  EXPECT_THROWS(ErrorCode::kNotFound, "train/50", store->ReadPrompt("train", 50));
}

TEST(StoreTest, OpenElsewhereIsAConflictAndReadOnlyIsNot) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  store->Insert(PlainGroup(1));
  EXPECT_THROWS(ErrorCode::kConflict, "open elsewhere", OpenStore(folder / "store"));
  // Another process, too.
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      OpenStore(folder / "store");
    } catch (const Error& e) {
      ::_exit(e.code() == ErrorCode::kConflict ? 0 : 2);
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  auto reader = Store::Open(folder / "store", {.read_only = true});
  EXPECT_TRUE(reader->Contains(Purpose::kTrain, 1));
  EXPECT_EQ(reader->Read(Purpose::kTrain, 1)->group, PlainGroup(1));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "reading only", reader->Insert(PlainGroup(2)));
}

TEST(StoreTest, OtherRunOtherFormatNoStore) {
  TempFolder folder;
  OpenStore(folder / "store");
  EXPECT_THROWS(ErrorCode::kConflict, "belongs to run 'run', not to 'walk'",
                OpenStore(folder / "store", "walk"));
  {
    RocksFolder rocks;
    rocks.Open(folder / "store", {});
    rocksdb::WriteBatch batch;
    batch.Put(rocks.meta(), "format", Seal("format", "2"));
    rocks.Write(batch, true);
  }
  EXPECT_THROWS(ErrorCode::kUnsupported, "format 2, this build reads format 1",
                OpenStore(folder / "store"));
  EXPECT_THROWS(ErrorCode::kNotFound, "no store here",
                Store::Open(folder / "nothing", {.read_only = true}));
  EXPECT_THROWS(ErrorCode::kNotFound, "no store here",
                Store::Open(folder / "nothing", {.create = false}));
}

TEST(StoreTest, ALostCurrentFileIsNotANewStore) {
  TempFolder folder;
  OpenStore(folder / "store")->Insert(PlainGroup(1));
  std::filesystem::remove(folder / "store/CURRENT");
  EXPECT_THROWS(ErrorCode::kCorruption, "no CURRENT", OpenStore(folder / "store"));
}

TEST(StoreTest, AFolderWithALogOfSomethingElseIsNoBrokenStore) {
  TempFolder folder;
  for (const char* name : {"train.log", "2026.log", "table.sst"})
    RealFileSystem().WriteFileAtomic(folder / name, "text");
  EXPECT_THROWS(ErrorCode::kNotFound, "not a store", Store::Open(folder / "", {.read_only = true}));
  RealFileSystem().WriteFileAtomic(folder / "000012.log", "text");
  EXPECT_THROWS(ErrorCode::kCorruption, "no CURRENT",
                Store::Open(folder / "", {.read_only = true}));
}

TEST(StoreTest, TrimmedLeasesStayComplete) {
  TempFolder folder;
  {
    auto store = OpenStore(folder / "store");
    for (uint64_t id = 0; id < 10; ++id) store->Insert(PlainGroup(id));
    store->Trim(Purpose::kTrain, 6);
  }
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(store->TrimmedBefore(Purpose::kTrain), 6u);
  EXPECT_FALSE(store->Read(Purpose::kTrain, 5).has_value());
  EXPECT_EQ(store->Insert(PlainGroup(5)), InsertResult::kDuplicate);
  EXPECT_EQ(store->Ids(Purpose::kTrain, 0, 100), (std::vector<uint64_t>{6, 7, 8, 9}));
  EXPECT_EQ(store->Sequence(), 10u);
  EXPECT_TRUE(store->Verify().problems.empty());
}

TEST(StoreTest, ReopenedLeasesForgetTheirAnswersAndNothingElse) {
  TempFolder folder;
  {
    auto store = OpenStore(folder / "store");
    for (uint64_t id = 0; id < 4; ++id) {
      TrajectoryGroup group = PlainGroup(id);
      group.lease.attempt = static_cast<uint32_t>(id) + 5;
      store->Insert(group);
    }
    GroupScore score;
    score.answers.resize(2);
    for (const uint64_t id : {2, 3}) store->PutScore(Purpose::kTrain, id, "other", score);
    store->Trim(Purpose::kTrain, 1);
    const std::vector<uint64_t> ids = {0, 2, 3, 9};  // one trimmed, one never answered
    const auto marks = store->Reopen(Purpose::kTrain, ids);
    ASSERT_EQ(marks.size(), 2u);
    EXPECT_EQ(marks[1].lease_id, 3u);
    EXPECT_EQ(marks[1].record.attempt, 8u);
    EXPECT_FALSE(marks[1].record.complete);
  }
  auto store = OpenStore(folder / "store");
  EXPECT_EQ(store->Sequence(), 4u) << "what was acknowledged stays acknowledged";
  EXPECT_EQ(store->Ids(Purpose::kTrain, 0, 100), (std::vector<uint64_t>{1}));
  EXPECT_FALSE(store->Read(Purpose::kTrain, 3).has_value());
  EXPECT_FALSE(store->ReadScore(Purpose::kTrain, 3, "other").has_value());
  EXPECT_EQ(store->Insert(PlainGroup(3)), InsertResult::kInserted);
  EXPECT_EQ(store->Sequence(), 5u);
  EXPECT_TRUE(store->Verify().problems.empty());
}

// A trim writes and syncs; inserts and reads go on meanwhile. The reader is a whole group ahead
// whenever Trim has begun.
TEST(StoreTest, TrimmingAndInsertingGoOnSideBySide) {
  TempFolder folder(InMemory());
  auto store = OpenStore(folder / "store");
  constexpr uint64_t kGroups = 300;
  std::thread trimmer([&] {
    for (uint64_t before = 0; before < kGroups;
         before = std::min<uint64_t>(kGroups, store->Sequence()))
      store->Trim(Purpose::kTrain, before);
  });
  for (uint64_t id = 0; id < kGroups; ++id) {
    EXPECT_EQ(store->Insert(PlainGroup(id)), InsertResult::kInserted);
    EXPECT_TRUE(store->Contains(Purpose::kTrain, id));
  }
  trimmer.join();
  store->Trim(Purpose::kTrain, kGroups);
  EXPECT_EQ(store->Counters()["trimmed"], static_cast<int64_t>(kGroups));
  EXPECT_TRUE(store->Ids(Purpose::kTrain, 0, kGroups).empty());
  EXPECT_EQ(store->Insert(PlainGroup(7)), InsertResult::kDuplicate);
}

TEST(StoreTest, AValueUnderAnotherKeyIsNoticed) {
  TempFolder folder;
  OpenStore(folder / "store")->Insert(PlainGroup(1));
  {
    RocksFolder rocks;
    rocks.Open(folder / "store", {});
    std::string value;
    {
      RocksFolder::Pinned pinned;
      ASSERT_TRUE(rocks.Get(Family::kGroups, LeaseKey(Purpose::kTrain, 1), &pinned).ok());
      value = pinned.value.ToString();
    }
    rocksdb::WriteBatch batch;
    batch.Put(rocks.handle(Family::kGroups), LeaseKey(Purpose::kTrain, 2), value);
    rocks.Write(batch, true);
  }
  auto store = OpenStore(folder / "store");
  EXPECT_THROWS(ErrorCode::kCorruption, "groups train lease 2", store->Read(Purpose::kTrain, 2));
  EXPECT_EQ(store->Counters()["corrupt_reads"], 1);
  ASSERT_EQ(store->Verify().problems.size(), 1u);
}

TEST(StoreTest, EvaluationsAndLeasesAreRemembered) {
  TempFolder folder;
  {
    auto store = OpenStore(folder / "store");
    store->PutEvaluation(3, 2, 40);
    const std::vector<LeaseMark> marks = {{Purpose::kTrain, 5, {false, 2, 1, 0}}};
    store->RecordLeases(marks);
    store->Count("refused/stale", 4);
  }
  auto store = OpenStore(folder / "store");
  ASSERT_EQ(store->Evaluations().size(), 1u);
  EXPECT_EQ(store->Evaluations()[0].prompts, 40u);
  ASSERT_EQ(store->Leases(Purpose::kTrain).size(), 1u);
  EXPECT_EQ(store->Leases(Purpose::kTrain)[0].record.attempt, 2u);
  EXPECT_EQ(store->Counters()["refused/stale"], 4);
}

}  // namespace
}  // namespace plumb::replay
