// Rows 1 and 4 of docs/reliability.md: a writer is killed and what it had acknowledged is there,
// once.
#include "common/base/crash_point.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>

#include "common/base/rng.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;

void WriteByte(int fd, uint64_t id) {
  if (::write(fd, &id, sizeof(id)) != sizeof(id)) ::_exit(3);
}

std::vector<uint64_t> ReadIds(int fd) {
  std::vector<uint64_t> ids;
  uint64_t id = 0;
  while (::read(fd, &id, sizeof(id)) == sizeof(id)) ids.push_back(id);
  return ids;
}

struct Told {
  std::set<uint64_t> sent, acked;
  int signal = 0;
};

// Runs start(sent_fd, acked_fd), which gives a child process, and kills that `kill_after` later (0:
// it has to end by itself).
template <class Start>
Told WatchAndKill(Start start, std::chrono::milliseconds kill_after) {
  int sent[2], acked[2];
  EXPECT_EQ(::pipe2(sent, O_CLOEXEC) + ::pipe2(acked, O_CLOEXEC), 0);
  const pid_t child = start(sent[1], acked[1]);
  EXPECT_GT(child, 0);
  ::close(sent[1]);
  ::close(acked[1]);
  // The pipes are read while the child writes: they must not fill up.
  Told told;
  std::thread read_sent([&] {
    for (const uint64_t id : ReadIds(sent[0])) told.sent.insert(id);
  });
  std::thread read_acked([&] {
    for (const uint64_t id : ReadIds(acked[0])) told.acked.insert(id);
  });
  if (kill_after.count() > 0) {
    std::this_thread::sleep_for(kill_after);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  read_sent.join();
  read_acked.join();
  ::close(sent[0]);
  ::close(acked[0]);
  told.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return told;
}

// Runs `body(sent_fd, acked_fd)` in a child that ends by itself.
template <class Body>
Told RunInChild(Body body) {
  return WatchAndKill(
      [&](int sent, int acked) {
        const pid_t child = ::fork();
        if (child != 0) return child;
        try {
          body(sent, acked);
        } catch (const std::exception& e) {
          std::fprintf(stderr, "writer: %s\n", e.what());
          ::_exit(2);
        }
        ::_exit(0);
      },
      std::chrono::milliseconds(0));
}

TEST(CrashTest, AcknowledgedIsRecoveredIsSent) {
  constexpr uint64_t kWriters = 3;  // of store_child.cc
  const int kills = Count(10, 100);
  RandomStream random(1, 0);
  size_t all_sent = 0, all_acked = 0;
  std::unique_ptr<TempFolder> folder;
  std::set<uint64_t> sent, acked;
  for (int cycle = 0; cycle < kills; ++cycle) {
    if (cycle % 10 == 0) {  // a store lives through ten kills
      folder = std::make_unique<TempFolder>();
      sent.clear();
      acked.clear();
    }
    const uint64_t next = sent.empty() ? 0 : *sent.rbegin() + 1;
    const Told told = WatchAndKill(
        [&](int sent_fd, int acked_fd) {
          return StartStoreChild({"write", *folder / "store", std::to_string(next),
                                  std::to_string(sent_fd), std::to_string(acked_fd)},
                                 {sent_fd, acked_fd});
        },
        std::chrono::milliseconds(40 + random.NextBelow(430)));
    EXPECT_EQ(told.signal, SIGKILL);
    sent.insert(told.sent.begin(), told.sent.end());
    acked.insert(told.acked.begin(), told.acked.end());
    auto store = OpenStore(*folder / "store");
    const auto ids = store->Ids(Purpose::kTrain, 0, UINT64_MAX);
    const std::set<uint64_t> recovered(ids.begin(), ids.end());
    for (const uint64_t id : acked)
      ASSERT_TRUE(recovered.contains(id)) << "acknowledged and lost: " << id;
    for (const uint64_t id : recovered) {
      ASSERT_TRUE(sent.contains(id)) << "never sent: " << id;
      ASSERT_EQ(store->Read(Purpose::kTrain, id)->group, Answer(PlainLease(id), 0, "run", 100));
      // A writer sends its next group when the one before is acknowledged: no holes.
      ASSERT_TRUE(id < next + kWriters || recovered.contains(id - kWriters))
          << "a hole before " << id;
    }
    const VerifyReport report = store->Verify();
    EXPECT_TRUE(report.problems.empty()) << report.problems[0];
    EXPECT_EQ(report.groups, recovered.size());  // each once
    if (cycle % 10 == 9) {
      all_sent += sent.size();
      all_acked += acked.size();
    }
  }
  EXPECT_GT(all_acked, static_cast<size_t>(kills));
  std::printf("%d kills: %zu sent, %zu acknowledged, none of them lost\n", kills, all_sent,
              all_acked);
}

TEST(CrashTest, BeforeTheLogNothingIsThere) {
  for (int round = 0; round < 3; ++round) {
    TempFolder folder;
    const Told told = RunInChild([&](int, int acked_fd) {
      auto store = OpenStore(folder / "store");
      store->Insert(PlainGroup(1));
      WriteByte(acked_fd, 1);
      ArmCrashPointForTest("store_before_wal");
      store->Insert(PlainGroup(2));
      WriteByte(acked_fd, 2);
    });
    EXPECT_EQ(told.signal, SIGKILL);
    EXPECT_EQ(told.acked, (std::set<uint64_t>{1}));
    auto store = OpenStore(folder / "store");
    EXPECT_TRUE(store->Contains(Purpose::kTrain, 1));
    EXPECT_FALSE(store->Contains(Purpose::kTrain, 2));
    EXPECT_EQ(store->Insert(PlainGroup(2)), InsertResult::kInserted);
  }
}

TEST(CrashTest, AfterTheLogTheSecondInsertIsADuplicate) {
  for (int round = 0; round < 3; ++round) {
    TempFolder folder;
    const Told told = RunInChild([&](int, int acked_fd) {
      auto store = OpenStore(folder / "store");
      ArmCrashPointForTest("store_after_wal_before_ack");
      store->Insert(PlainGroup(1));
      WriteByte(acked_fd, 1);
    });
    EXPECT_EQ(told.signal, SIGKILL);
    EXPECT_TRUE(told.acked.empty());
    auto store = OpenStore(folder / "store");
    // was durable: acknowledged now, not doubled
    EXPECT_EQ(store->Insert(PlainGroup(1)), InsertResult::kDuplicate);
    EXPECT_EQ(store->Read(Purpose::kTrain, 1)->group, PlainGroup(1));
  }
}

}  // namespace
}  // namespace plumb::replay
