// Reliability rows 1 and 4 at smoke size: a writer is killed and what it had acknowledged is there, once.
#include "common/crash_point.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>

#include "fixtures.h"

namespace plumb::replay {
namespace {

void WriteByte(int fd, uint64_t id) {
  if (::write(fd, &id, sizeof(id)) != sizeof(id)) ::_exit(3);
}

std::vector<uint64_t> ReadIds(int fd) {
  std::vector<uint64_t> ids;
  uint64_t id = 0;
  while (::read(fd, &id, sizeof(id)) == sizeof(id)) ids.push_back(id);
  return ids;
}

// Runs `body(sent_fd, acked_fd)` in a child that is killed after `kill_after` (0: it has to end by itself).
struct Told {
  std::set<uint64_t> sent, acked;
  int signal = 0;
};
template <class Body>
Told RunAndKill(Body body, std::chrono::milliseconds kill_after) {
  int sent[2], acked[2];
  EXPECT_EQ(::pipe(sent) + ::pipe(acked), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(sent[0]);
    ::close(acked[0]);
    try {
      body(sent[1], acked[1]);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "writer: %s\n", e.what());
      ::_exit(2);
    }
    ::_exit(0);
  }
  ::close(sent[1]);
  ::close(acked[1]);
  // The pipes are read while the child writes: they must not fill up.
  Told told;
  std::thread read_sent([&] { for (const uint64_t id : ReadIds(sent[0])) told.sent.insert(id); });
  std::thread read_acked([&] { for (const uint64_t id : ReadIds(acked[0])) told.acked.insert(id); });
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

TEST(CrashTest, AcknowledgedIsRecoveredIsSentOverTenKills) {
  TempFolder folder;
  std::set<uint64_t> sent, acked;
  uint64_t next = 0;
  for (int cycle = 0; cycle < 10; ++cycle) {
    const Told told = RunAndKill(
        [&](int sent_fd, int acked_fd) {
          auto store = Store::Open(folder / "store", {.run_id = "run", .write_buffer_mb = 1});  // flushes happen, too
          std::vector<std::thread> writers;
          for (uint64_t t = 0; t < 3; ++t) {
            writers.emplace_back([&, t] {
              for (uint64_t id = next + t;; id += 3) {
                const TrajectoryGroup group = Answer(PlainLease(id), 0, "run", 100);
                WriteByte(sent_fd, id);
                if (store->Insert(group) == InsertResult::kInserted) WriteByte(acked_fd, id);
              }
            });
          }
          for (auto& w : writers) w.join();
        },
        std::chrono::milliseconds(120 + 37 * cycle));
    EXPECT_EQ(told.signal, SIGKILL);
    sent.insert(told.sent.begin(), told.sent.end());
    acked.insert(told.acked.begin(), told.acked.end());
    auto store = OpenStore(folder / "store");
    const auto ids = store->Ids(Purpose::kTrain, 0, UINT64_MAX);
    const std::set<uint64_t> recovered(ids.begin(), ids.end());
    for (const uint64_t id : acked) ASSERT_TRUE(recovered.contains(id)) << "acknowledged and lost: " << id;
    for (const uint64_t id : recovered) {
      ASSERT_TRUE(sent.contains(id)) << "never sent: " << id;
      ASSERT_EQ(store->Read(Purpose::kTrain, id)->group, Answer(PlainLease(id), 0, "run", 100));
    }
    const VerifyReport report = store->Verify();
    EXPECT_TRUE(report.problems.empty()) << report.problems[0];
    EXPECT_EQ(report.groups, recovered.size());  // each once
    next = sent.empty() ? 0 : *sent.rbegin() + 1;
  }
  EXPECT_GT(acked.size(), 10u);
  std::printf("10 kills: %zu sent, %zu acknowledged, none of them lost\n", sent.size(), acked.size());
}

TEST(CrashTest, BeforeTheLogNothingIsThere) {
  for (int round = 0; round < 3; ++round) {
    TempFolder folder;
    const Told told = RunAndKill(
        [&](int, int acked_fd) {
          auto store = OpenStore(folder / "store");
          store->Insert(PlainGroup(1));
          WriteByte(acked_fd, 1);
          ArmCrashPointForTest("store_before_wal");
          store->Insert(PlainGroup(2));
          WriteByte(acked_fd, 2);
        },
        std::chrono::milliseconds(0));
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
    const Told told = RunAndKill(
        [&](int, int acked_fd) {
          auto store = OpenStore(folder / "store");
          ArmCrashPointForTest("store_after_wal_before_ack");
          store->Insert(PlainGroup(1));
          WriteByte(acked_fd, 1);
        },
        std::chrono::milliseconds(0));
    EXPECT_EQ(told.signal, SIGKILL);
    EXPECT_TRUE(told.acked.empty());
    auto store = OpenStore(folder / "store");
    EXPECT_EQ(store->Insert(PlainGroup(1)), InsertResult::kDuplicate);  // was durable: acknowledged now, not doubled
    EXPECT_EQ(store->Read(Purpose::kTrain, 1)->group, PlainGroup(1));
  }
}

}  // namespace
}  // namespace plumb::replay
