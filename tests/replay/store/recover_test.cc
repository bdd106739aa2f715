// Row 7 of docs/reliability.md, the way back: a copy of a store with a damaged log that ends in
// front of the damage, and the acknowledged groups that it lacks, by name or at least by number.
#include "replay/store/recover.h"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <optional>
#include <set>

#include <rocksdb/env.h>

#include "common/base/rng.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;

constexpr uint64_t kGroups = 40;

TrajectoryGroup GroupOf(uint64_t id) {
  return Answer(PlainLease(id), 0, "run", 3 + static_cast<int>(id % 17));
}

// As a killed process leaves it: groups up to `in_tables` in table files, the rest in the log.
void Fill(const TempFolder& folder, uint64_t in_tables) {
  auto store = OpenStore(folder / "live");
  store->PutPrompts("train", SomePrompts(30));
  for (uint64_t id = 0; id < kGroups; ++id) {
    store->Insert(GroupOf(id));
    if (id + 1 == in_tables) store->Flush();
  }
  std::filesystem::copy(folder / "live", folder / "store");
}

// RocksDB writes no table and removes no log while one of these is there: each of its background
// threads waits. Made after the store, which starts the threads; gone before it is closed.
class NothingInTheBackground {
 public:
  NothingInTheBackground() {
    for (const auto pool : {rocksdb::Env::HIGH, rocksdb::Env::LOW, rocksdb::Env::BOTTOM})
      busy_ += rocksdb::Env::Default()->GetBackgroundThreads(pool);
    for (const auto pool : {rocksdb::Env::HIGH, rocksdb::Env::LOW, rocksdb::Env::BOTTOM}) {
      for (int i = 0; i < rocksdb::Env::Default()->GetBackgroundThreads(pool); ++i)
        rocksdb::Env::Default()->Schedule(&Wait, this, pool);
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ == busy_; });
  }
  ~NothingInTheBackground() {
    std::unique_lock lock(mutex_);
    released_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return waiting_ == 0; });
  }
  NothingInTheBackground(const NothingInTheBackground&) = delete;
  NothingInTheBackground& operator=(const NothingInTheBackground&) = delete;

 private:
  static void Wait(void* self) {
    auto& held = *static_cast<NothingInTheBackground*>(self);
    std::unique_lock lock(held.mutex_);
    ++held.waiting_;
    held.changed_.notify_all();
    held.changed_.wait(lock, [&] { return held.released_; });
    --held.waiting_;
    held.changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int busy_ = 0, waiting_ = 0;
  bool released_ = false;
};

std::string NewestLog(const std::string& store) {
  std::string newest;
  for (const auto& entry : std::filesystem::directory_iterator(store)) {
    if (entry.path().extension() == ".log" && entry.file_size() > 0)
      newest = std::max(newest, entry.path().string());
  }
  return newest;
}

void Flip(const std::string& file, size_t at, int bit) {
  std::string bytes = ReadFile(file);
  bytes.at(at) = static_cast<char>(bytes.at(at) ^ (1 << bit));
  WriteFile(file, bytes);
}

// The ids in the copy, each group of which reads as it was written.
std::set<uint64_t> Kept(const std::string& copy) {
  auto store = OpenStore(copy);
  EXPECT_TRUE(store->Verify().problems.empty());
  const auto ids = store->Ids(Purpose::kTrain, 0, UINT64_MAX);
  for (const uint64_t id : ids)
    EXPECT_EQ(store->Read(Purpose::kTrain, id)->group, GroupOf(id)) << id;
  return {ids.begin(), ids.end()};
}

TEST(RecoverTest, NamesWhatACopyUpToTheDamageLacks) {
  const OnlyErrorsInTheLog quiet;
  const TempFolder folder(InMemory());
  Fill(folder, 10);
  const std::string log = NewestLog(folder / "store");
  Flip(log, ReadFile(log).size() / 2, 3);
  EXPECT_THROWS(ErrorCode::kCorruption, "store recover --point-in-time",
                OpenStore(folder / "store"));
  const std::string before = ReadFile(log);

  const Recovery looked = Recover(folder / "store", std::nullopt);
  EXPECT_EQ(looked.damaged, log);
  EXPECT_FALSE(std::filesystem::exists(folder / "store.recovering"));
  EXPECT_EQ(ReadFile(log), before);

  const Recovery made = Recover(folder / "store", folder / "copy");
  EXPECT_EQ(made.missing, looked.missing);
  EXPECT_TRUE(made.problems.empty());
  const std::set<uint64_t> kept = Kept(folder / "copy");
  EXPECT_EQ(kept.size(), made.kept_groups);
  EXPECT_GE(kept.size(), 10u);
  EXPECT_LT(kept.size(), kGroups - 5);
  // Inserts came one after the other: the copy has the first, and one record was hit.
  for (uint64_t id = 0; id < kept.size(); ++id) EXPECT_TRUE(kept.contains(id));
  EXPECT_EQ(kept.size() + made.missing.size() + made.nameless, kGroups);
  EXPECT_LE(made.nameless, 1u);
  EXPECT_EQ(made.missing.back(), std::pair(Purpose::kTrain, kGroups - 1));
  for (const auto& [purpose, id] : made.missing) EXPECT_FALSE(kept.contains(id));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "copy", Recover(folder / "store", folder / "copy"));

  // It goes on as a store: what is missing is answered afresh.
  {
    auto store = OpenStore(folder / "copy");
    for (uint64_t id = 0; id < kGroups; ++id) {
      if (!kept.contains(id)) store->Insert(GroupOf(id));
    }
  }
  EXPECT_EQ(Kept(folder / "copy").size(), kGroups);
}

// Wherever a bit of the log is turned over: what is kept is right, and nothing is missing that is
// neither named nor counted, but at the very end, behind which nobody knows of more.
TEST(RecoverTest, NothingIsMissingWithoutAWordWhereverTheDamageIs) {
  const OnlyErrorsInTheLog quiet;
  const TempFolder folder(InMemory());
  Fill(folder, 4);
  const std::string name = std::filesystem::path(NewestLog(folder / "store")).filename();
  const size_t size = ReadFile(folder / ("store/" + name)).size();
  RandomStream random(71, 0);
  size_t unsaid = 0;
  const int flips = Count(12, 400);
  for (int i = 0; i < flips; ++i) {
    std::filesystem::copy(folder / "store", folder / "damaged");
    Flip(folder / ("damaged/" + name), random.NextBelow(static_cast<uint32_t>(size)),
         static_cast<int>(random.NextBelow(8)));
    const Recovery made = Recover(folder / "damaged", folder / "copy");
    ASSERT_FALSE(made.damaged.empty()) << i;
    const size_t known = Kept(folder / "copy").size() + made.missing.size() + made.nameless;
    ASSERT_LE(known, kGroups) << i;
    // Damaged bytes may hold records up to the end of their block.
    if (known < kGroups) {
      EXPECT_EQ(made.missing.size(), 0u) << i;
      ++unsaid;
    }
    std::filesystem::remove_all(folder / "damaged");
    std::filesystem::remove_all(folder / "copy");
  }
  EXPECT_LT(unsaid, static_cast<size_t>(flips) / 2);
}

// Groups fill their family's memory first: what is in a table already stands beside leases that the
// damaged log has, and a newer log begins.
TEST(RecoverTest, NewerLogsAreLeftOutAndReadForNames) {
  const OnlyErrorsInTheLog quiet;
  const TempFolder folder(InMemory());
  constexpr int kTokens = 3000;
  const auto group = [](uint64_t id) { return Answer(PlainLease(id), 0, "run", kTokens); };
  uint64_t groups = 0;
  const auto logs = [&](const char* of) {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder / of)) {
      if (entry.path().extension() == ".log" && entry.file_size() > 0)
        found.insert(entry.path().filename());
    }
    return found;
  };
  {
    // A second log begins where RocksDB writes the first one's groups to a table. Once that is
    // there it is ahead of the damage, and no copy up to it can be made: it waits for the copy.
    auto store = Store::Open(folder / "live", {.run_id = "run", .write_buffer_mb = 1});
    const NothingInTheBackground held;
    while (logs("live").size() < 2 && groups < 500) store->Insert(group(groups++));
    for (int more = 0; more < 3; ++more) store->Insert(group(groups++));
    std::filesystem::copy(folder / "live", folder / "store");
  }
  ASSERT_EQ(logs("store").size(), 2u) << groups << " groups did not make a second log";
  const std::string oldest = folder / ("store/" + *logs("store").begin());
  Flip(oldest, ReadFile(oldest).size() / 2, 0);
  const Recovery made = Recover(folder / "store", folder / "copy");
  EXPECT_EQ(made.damaged, oldest);
  EXPECT_EQ(made.left_out.size(), 1u);
  EXPECT_GT(made.kept_groups, groups / 4);
  EXPECT_GT(made.missing.size(), groups / 4);
  EXPECT_EQ(made.kept_groups + made.missing.size() + made.nameless, groups);
  EXPECT_EQ(made.missing.back().second, groups - 1);
  for (const std::string& problem : made.problems) ADD_FAILURE() << problem;
  auto store = OpenStore(folder / "copy");
  for (const auto& [purpose, id] : made.missing) {
    EXPECT_FALSE(store->Contains(purpose, id));
    store->Insert(group(id));
  }
  for (uint64_t id = 0; id < made.kept_groups; ++id)
    EXPECT_EQ(store->Read(Purpose::kTrain, id)->group, group(id)) << id;
  EXPECT_EQ(store->Read(Purpose::kTrain, groups - 1)->group, group(groups - 1));
}

TEST(RecoverTest, AWholeStoreOneInUseAndOtherDamageAreNotRecovered) {
  const OnlyErrorsInTheLog quiet;
  const TempFolder folder(InMemory());
  Fill(folder, 10);
  EXPECT_EQ(Recover(folder / "store", folder / "copy").damaged, "");
  EXPECT_FALSE(std::filesystem::exists(folder / "copy"));
  {
    auto store = OpenStore(folder / "live");
    EXPECT_THROWS(ErrorCode::kConflict, "stop it", Recover(folder / "live", std::nullopt));
  }
  EXPECT_THROWS(ErrorCode::kNotFound, "no store", Recover(folder / "none", std::nullopt));
  for (const auto& entry : std::filesystem::directory_iterator(folder / "store")) {
    if (entry.path().filename().string().starts_with("MANIFEST"))
      Flip(entry.path().string(), 40, 2);
  }
  EXPECT_THROWS(ErrorCode::kCorruption, "MANIFEST", Recover(folder / "store", std::nullopt));
}

// What a reader of the store is refused with.
std::optional<Error> WhyVerifyRefuses(const std::string& store) {
  try {
    const VerifyReport report = Store::Open(store, {.read_only = true})->Verify();
    if (report.problems.empty()) return std::nullopt;
    return Error(ErrorCode::kCorruption, report.problems.front(), store);
  } catch (const Error& e) {
    return e;
  }
}

// No point in time helps there, and saying "nothing is to be recovered" would be wrong.
TEST(RecoverTest, WhatVerifyRefusesAndNoLogShowsIsRefusedInItsWords) {
  const OnlyErrorsInTheLog quiet;
  const auto of_kind = [](const std::string& store, const std::string& kind) {
    for (const auto& entry : std::filesystem::directory_iterator(store)) {
      if (entry.path().filename().string().find(kind) != std::string::npos && entry.file_size() > 0)
        return entry.path().string();
    }
    ADD_FAILURE() << "no " << kind;
    return std::string();
  };
  const std::vector<std::function<void(const std::string&)>> damages = {
      [&](const std::string& s) { std::filesystem::resize_file(of_kind(s, "MANIFEST"), 10); },
      [&](const std::string& s) { Flip(of_kind(s, "MANIFEST"), 40, 2); },
      [&](const std::string& s) { std::filesystem::remove(NewestLog(s)); },
      [&](const std::string& s) {
        const std::string table = of_kind(s, ".sst");
        Flip(table, ReadFile(table).size() / 3, 1);
      }};
  for (size_t i = 0; i < damages.size(); ++i) {
    const TempFolder folder(InMemory());
    // Of a store that has tables the newest log may be gone unseen: the run's checkpoint knows
    // (tests/run/session/stored/run_store_test.cc).
    Fill(folder, i == 2 ? 0 : 10);
    damages[i](folder / "store");
    const auto verify = WhyVerifyRefuses(folder / "store");
    ASSERT_TRUE(verify) << i;
    EXPECT_EQ(verify->message().find("store recover"), std::string::npos) << verify->message();
    try {
      Recover(folder / "store", folder / "copy");
      ADD_FAILURE() << i << ": not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), verify->code()) << i;
      EXPECT_TRUE(e.message().starts_with(verify->message())) << i << ": " << e.message();
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "copy")) << i;
  }
}

TEST(RecoverTest, AFolderThatCannotBeLockedIsNotCalledOneInUse) {
  const OnlyErrorsInTheLog quiet;
  const TempFolder folder(InMemory());
  Fill(folder, 10);
  // As on a file system that is read-only, of which root is not refused anything: no file of locks.
  std::filesystem::remove(folder / "store/LOCK");
  std::filesystem::create_directory(folder / "store/LOCK");
  EXPECT_THROWS(ErrorCode::kIo, "could not lock it", Recover(folder / "store", std::nullopt));
}

}  // namespace
}  // namespace plumb::replay
