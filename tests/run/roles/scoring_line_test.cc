// Groups through a line: each is stored as soon as it is scored, in inserts of a bounded size, over
// a disk that runs full.
#include "run/roles/scoring_line.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <set>

#include "common/base/error.h"
#include "replay/store/record.h"
#include "replay/store/store.h"
#include "tests/replay/faulty_disk.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

FinishedGroup Group(uint64_t id, int tokens = 4) {
  return {replay::Answer(replay::PlainLease(id, Purpose::kTrain, 1), 0, "run", tokens),
          std::nullopt};
}

replay::ScoredBody Sealed(const FinishedGroup& made) {
  return {GroupBody::Seal(made.group), replay::ScoresOf(made.group)};
}

// What a line did, and what a test waits for.
struct Bench {
  ScoringLine& Make(ScoringOptions options = {}) {
    options.retry = milliseconds(1);
    line = std::make_unique<ScoringLine>(
        [this](FinishedGroup& made) {
          const uint64_t id = made.group.lease.lease_id;
          std::unique_lock lock(mu);
          begun.insert(id);
          changed.notify_all();
          changed.wait_for(lock, std::chrono::seconds(20), [&] { return !held.contains(id); });
          if (spoiled.contains(id)) throw Error(ErrorCode::kConflict, "the part is disabled");
          if (away-- > 0) throw Error(ErrorCode::kUnavailable, "nobody has its prompt");
          ++scored;
          changed.notify_all();
          return Sealed(made);
        },
        [this](std::span<const replay::ScoredBody> groups) {
          std::lock_guard lock(mu);
          ++tries;
          changed.notify_all();
          if (refusals-- > 0) throw Error(refuse, "no room");
          std::vector<uint64_t> ids;
          for (const replay::ScoredBody& group : groups)
            ids.push_back(group.body.head().lease.lease_id);
          inserts.push_back(ids);
          stored.insert(ids.begin(), ids.end());
          changed.notify_all();
        },
        options);
    return *line;
  }
  void Push(uint64_t id, int tokens = 4) {
    FinishedGroup made = Group(id, tokens);
    EXPECT_TRUE(line->Push(made, After(std::chrono::seconds(20)), [this, id] {
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
  int scored = 0, tries = 0, refusals = 0, away = 0;
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

// While an insert is refused others are scored: what has gathered goes out in inserts below both
// bounds, and one that is larger alone.
TEST(ScoringLine, InsertsAreBoundedByBytesAndGroups) {
  Bench b;
  b.refusals = 1 << 20;
  const size_t small = Sealed(Group(0)).body.bytes().size();
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
  FinishedGroup late = Group(2);
  EXPECT_FALSE(full.line->Push(late, After(milliseconds(1)))) << "nobody takes it any more";
  EXPECT_EQ(late.group, Group(2).group) << "what is not taken stays whole";

  Bench away;  // another process is started again, however long that takes
  away.refuse = ErrorCode::kUnavailable;
  away.refusals = 20;
  away.Make({.full_disk_patience = milliseconds(0)});
  away.Push(1);
  EXPECT_TRUE(away.Await([&] { return away.acknowledged.contains(1); }));
}

// The store itself on a disk that runs full for a while: every group is stored in the end, once,
// and acknowledged after that.
TEST(ScoringLine, AStoreOnAFullDiskTakesEverythingInTheEnd) {
  const plumb::testing::TempFolder folder;
  replay::FaultyDisk disk;
  disk.Plan(replay::FaultyDisk::Fault::kFull, 120, 40);
  {
    auto store =
        replay::Store::Open(folder / "store", {.run_id = "run", .env_for_test = disk.env()});
    std::mutex mu;
    std::condition_variable changed;
    uint64_t acknowledged = 0, pushed = 0;
    ScoringLine line([](FinishedGroup& made) { return Sealed(made); },
                     [&](std::span<const replay::ScoredBody> groups) {
                       std::vector<const replay::ScoredBody*> all;
                       for (const auto& group : groups) all.push_back(&group);
                       store->Insert(all);
                     },
                     {.retry = milliseconds(2)});
    const auto push = [&] {
      FinishedGroup made{replay::PlainGroup(pushed++), std::nullopt};
      ASSERT_TRUE(line.Push(made, After(std::chrono::seconds(20)), [&] {
        std::lock_guard lock(mu);
        ++acknowledged;
        changed.notify_all();
      }));
      std::unique_lock lock(mu);
      ASSERT_TRUE(
          changed.wait_for(lock, std::chrono::seconds(20), [&] { return acknowledged == pushed; }));
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

// Who scores may have to ask for a prompt, and whoever has it may be away.
TEST(ScoringLine, AGroupThatCannotBeScoredYetIsTriedAgain) {
  Bench b;
  b.away = 3;
  b.Make();
  b.Push(1);
  EXPECT_TRUE(b.Await([&] { return b.acknowledged.contains(1); }));
  EXPECT_EQ(b.scored, 1);
  EXPECT_FALSE(b.line->failed());
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
  FinishedGroup third = Group(2);
  EXPECT_FALSE(b.line->Push(third, After(milliseconds(5))));
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
  for (FinishedGroup more = Group(3); b.line->Push(more, Deadline{}); more = Group(3))
    std::this_thread::yield();  // until it is closed
  b.Free(0);
  closer.join();
  EXPECT_EQ(b.acknowledged, (std::set<uint64_t>{0})) << "the one that was being scored is stored";
  EXPECT_EQ(b.stored, (std::set<uint64_t>{0}));
  b.line->Rethrow();
}

}  // namespace
}  // namespace plumb::run
