// Groups through a line: each is stored as soon as it is scored, in inserts of a bounded size, over a disk that runs full.
#include "run/scoring_line.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <set>

#include "common/error.h"
#include "replay/store.h"
#include "tests/replay/faulty_disk.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

TrajectoryGroup Group(uint64_t id, size_t tokens = 4) {
  TrajectoryGroup group;
  group.lease.lease_id = id;
  Trajectory t;
  t.tokens.resize(tokens);
  group.trajectories.push_back(std::move(t));
  return group;
}

// What a line did, and what a test waits for.
struct Bench {
  ScoringLine& Make(ScoringOptions options = {}) {
    options.retry = milliseconds(1);
    line = std::make_unique<ScoringLine>(
        [this](TrajectoryGroup& group) {
          std::unique_lock lock(mu);
          begun.insert(group.lease.lease_id);
          changed.notify_all();
          changed.wait_for(lock, std::chrono::seconds(20), [&] { return !held.contains(group.lease.lease_id); });
          if (spoiled.contains(group.lease.lease_id)) throw Error(ErrorCode::kConflict, "the part is disabled");
          ++scored;
          changed.notify_all();
        },
        [this](std::span<const TrajectoryGroup> groups) {
          std::lock_guard lock(mu);
          ++tries;
          changed.notify_all();
          if (refusals-- > 0) throw Error(refuse, "no room");
          std::vector<uint64_t> ids;
          for (const TrajectoryGroup& group : groups) ids.push_back(group.lease.lease_id);
          inserts.push_back(ids);
          stored.insert(ids.begin(), ids.end());
          changed.notify_all();
        },
        options);
    return *line;
  }
  void Push(uint64_t id, size_t tokens = 4) {
    EXPECT_TRUE(line->Push(Group(id, tokens), After(std::chrono::seconds(20)), [this, id] {
      std::lock_guard lock(mu);
      EXPECT_TRUE(stored.contains(id)) << "acknowledged before it was stored";
      acknowledged.insert(id);
      changed.notify_all();
    }));
  }
  bool Await(const std::function<bool()>& what) {
    std::unique_lock lock(mu);
    return changed.wait_for(lock, std::chrono::seconds(20), what);
  }
  void Free(uint64_t id) {
    std::lock_guard lock(mu);
    held.erase(id);
    changed.notify_all();
  }

  std::mutex mu;
  std::condition_variable changed;
  std::set<uint64_t> held, spoiled, begun, stored, acknowledged;
  std::vector<std::vector<uint64_t>> inserts;
  int scored = 0, tries = 0, refusals = 0;
  ErrorCode refuse = ErrorCode::kNoSpace;
  std::unique_ptr<ScoringLine> line;  // last: its threads end first
};

TEST(ScoringLine, ASlowGroupHoldsUpNobody) {
  Bench b;
  b.held = {0};
  b.Make({.side_by_side = 2});
  for (uint64_t id = 0; id < 70; ++id) b.Push(id);
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.size() == 69; }));
  EXPECT_FALSE(b.stored.contains(0));
  EXPECT_GT(b.line->score_seconds(), 0);
  b.Free(0);
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.size() == 70; }));
  EXPECT_FALSE(b.line->failed());
}

// While an insert is refused others are scored: what has gathered goes out in inserts below both bounds, and one that is larger alone.
TEST(ScoringLine, InsertsAreBoundedByBytesAndGroups) {
  Bench b;
  b.refusals = 1 << 20;
  const size_t small = BytesOfGroup(Group(0)), large = BytesOfGroup(Group(0, 100'000));
  ASSERT_GT(large, size_t{100'000} * 17);
  b.Make({.insert_groups = 5, .insert_bytes = 3 * small});
  b.Push(0);
  EXPECT_TRUE(b.Await([&] { return b.tries > 0; })) << "the first goes alone";
  for (uint64_t id = 1; id <= 7; ++id) b.Push(id, id == 4 ? 100'000 : 4);
  EXPECT_TRUE(b.Await([&] { return b.scored == 8; }));
  std::this_thread::sleep_for(milliseconds(20));  // the last one is on its way from its scorer
  {
    std::lock_guard lock(b.mu);
    b.refusals = 0;
  }
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.size() == 8; }));
  EXPECT_EQ(b.inserts, (std::vector<std::vector<uint64_t>>{{0}, {1, 2, 3}, {4}, {5, 6, 7}}));
}

TEST(ScoringLine, AFullDiskIsWaitedForButNotForEver) {
  Bench b;
  b.refusals = 5;
  b.Make();
  b.Push(1);
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.contains(1); }));
  EXPECT_EQ(b.tries, 6);

  Bench full;
  full.refusals = 1 << 30;
  full.Make({.full_disk_patience = milliseconds(30)});
  full.Push(1);
  while (!full.line->failed()) std::this_thread::yield();
  try {
    full.line->Rethrow();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNoSpace);
  }
  EXPECT_GT(full.tries, 1);
  EXPECT_FALSE(full.line->Push(Group(2), After(milliseconds(1)))) << "nobody takes it any more";

  Bench away;  // another process is started again, however long that takes
  away.refuse = ErrorCode::kUnavailable;
  away.refusals = 20;
  away.Make({.full_disk_patience = milliseconds(0)});
  away.Push(1);
  EXPECT_TRUE(away.Await([&] { return away.acknowledged.contains(1); }));
}

// The store itself on a disk that runs full for a while: every group is stored in the end, once, and acknowledged after that.
TEST(ScoringLine, AStoreOnAFullDiskTakesEverythingInTheEnd) {
  const plumb::testing::TempFolder folder;
  replay::FaultyDisk disk;
  disk.Plan(replay::FaultyDisk::Fault::kFull, 120, 40);
  {
    auto store = replay::Store::Open(folder / "store", {.run_id = "run", .env_for_test = disk.env()});
    std::mutex mu;
    std::condition_variable changed;
    uint64_t acknowledged = 0, pushed = 0;
    ScoringLine line([](TrajectoryGroup&) {}, [&](std::span<const TrajectoryGroup> groups) { store->Insert(groups); },
                     {.retry = milliseconds(2)});
    const auto push = [&] {
      ASSERT_TRUE(line.Push(replay::PlainGroup(pushed++), After(std::chrono::seconds(20)), [&] {
        std::lock_guard lock(mu);
        ++acknowledged;
        changed.notify_all();
      }));
      std::unique_lock lock(mu);
      ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return acknowledged == pushed; }));
    };
    while (!disk.fired() && pushed < 1000) push();
    for (int i = 0; i < 5; ++i) push();
    line.Close();
    line.Rethrow();
    EXPECT_TRUE(disk.fired());
    EXPECT_GE(store->Counters()["no_space"], 1);
    EXPECT_EQ(store->Ids(Purpose::kTrain, 0, 10'000).size(), pushed);
  }
  auto store = replay::Store::Open(folder / "store", {.run_id = "run"});
  EXPECT_GT(store->Sequence(), 5u);
  EXPECT_TRUE(store->Verify().problems.empty());
}

TEST(ScoringLine, AnotherErrorEndsTheLine) {
  Bench scoring;
  scoring.spoiled = {3};
  scoring.Make();
  scoring.Push(3);
  while (!scoring.line->failed()) std::this_thread::yield();
  EXPECT_THROW(scoring.line->Rethrow(), Error);

  Bench storing;
  storing.refuse = ErrorCode::kCorruption;
  storing.refusals = 1;
  storing.Make();
  storing.Push(3);
  while (!storing.line->failed()) std::this_thread::yield();
  EXPECT_THROW(storing.line->Rethrow(), Error);
  EXPECT_TRUE(storing.acknowledged.empty());
}

TEST(ScoringLine, HoldsNoMoreThanItsCapacity) {
  Bench b;
  b.held = {0};
  b.Make({.capacity = 2});
  b.Push(0);
  b.Push(1);
  EXPECT_FALSE(b.line->Push(Group(2), After(milliseconds(5))));
  b.Free(0);
  b.Push(2);
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.size() == 3; }));
}

TEST(ScoringLine, LetsGoOfWhatHasNoScoreWhenClosed) {
  Bench b;
  b.held = {0};
  b.Make();
  b.Push(0);
  ASSERT_TRUE(b.Await([&] { return b.begun.contains(0); }));
  std::thread closer([&] { b.line->Close(); });
  while (b.line->Push(Group(3), Deadline{})) std::this_thread::yield();  // until it is closed
  b.Free(0);
  closer.join();
  EXPECT_EQ(b.acknowledged, (std::set<uint64_t>{0})) << "the one that was being scored is stored";
  EXPECT_EQ(b.stored, (std::set<uint64_t>{0}));
  b.line->Rethrow();
}

}  // namespace
}  // namespace plumb::run
