// Row 3 of docs/reliability.md: the power of the machine that holds the store is cut. The machine
// is a User-Mode Linux (Debian: user-mode-linux) with its root on the host's files and a disk of
// its own, an ext4 image; killing its processes takes everything that its kernel had not yet
// written to that disk. The next boot replays the journal and goes on. tests/replay/store_child.cc
// is what runs in it.
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <set>
#include <thread>

#include "common/base/rng.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;
using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string FindProgram(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

struct Disk {
  TempFolder folder;
  std::string image = folder / "disk.img";
  std::set<uint64_t> sent, acked, has;  // `has`: at the last boot
  uint64_t Next() const { return sent.empty() ? 0 : *sent.rbegin() + 1; }
};

struct Boot {
  bool up = false, opened = false;
  std::string problem;
  std::string console;  // all of it
};

class Machine {
 public:
  // Boots `disk`, and cuts the power `after` the first group was acknowledged; nullopt: runs until
  // it ends by itself.
  static Boot Run(Disk& disk, const std::string& mode, std::optional<milliseconds> after) {
    Machine machine(disk, mode);
    machine.Watch(disk, after);
    return machine.boot_;
  }

 private:
  Machine(const Disk& disk, const std::string& mode) {
    std::filesystem::create_directories(disk.folder / "mnt");
    std::vector<std::string> line = {FindProgram({"/usr/bin/linux.uml", "/usr/bin/linux"}),
                                     "rootfstype=hostfs",
                                     "rw",
                                     "mem=256M",
                                     "init=" + plumb::testing::BinaryPath("tests/store_child"),
                                     "ubd0=" + disk.image,
                                     "con=null",
                                     "con0=null,fd:1",
                                     "ssl=null",
                                     "quiet",
                                     "uml_dir=" + (disk.folder / "uml/"),
                                     "umid=machine",
                                     "GUEST_DISK=" + (disk.folder / "mnt"),
                                     "GUEST_MODE=" + mode,
                                     "GUEST_FIRST=" + std::to_string(disk.Next())};
    int out[2];
    PLUMB_CHECK(::pipe2(out, O_CLOEXEC) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();  // one group, so that one kill takes all of its processes
      ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(out[1], STDERR_FILENO);
      std::vector<char*> arguments;
      for (std::string& word : line) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ::close(out[1]);
    console_ = out[0];
  }
  ~Machine() { ::close(console_); }

  void Watch(Disk& disk, std::optional<milliseconds> after) {
    disk.has.clear();
    auto until = SteadyClock::now() + seconds(120);  // a boot takes two
    bool acked = false;
    for (bool cut = false;;) {
      const auto left =
          std::chrono::duration_cast<milliseconds>(until - SteadyClock::now()).count();
      pollfd ready{console_, POLLIN, 0};
      if (!cut && (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) == 0)) {
        ::kill(-pid_, SIGKILL);  // what was acknowledged and not yet read is still in the pipe
        cut = true;
      }
      char bytes[65536];
      const ssize_t n = ::read(console_, bytes, sizeof(bytes));
      if (n <= 0) break;
      boot_.console.append(bytes, static_cast<size_t>(n));
      Parse(disk);
      if (!acked && !disk.acked.empty() && saw_ack_ && after) {
        acked = true;
        until = SteadyClock::now() + *after;
      }
    }
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  void Parse(Disk& disk) {
    for (size_t end; (end = boot_.console.find('\n', parsed_)) != std::string::npos;
         parsed_ = end + 1) {
      std::string text = boot_.console.substr(parsed_, end - parsed_);
      while (!text.empty() && text.back() == '\r') text.pop_back();
      if (text.starts_with("problem: ")) boot_.problem = text;
      char what[16];
      unsigned long long id = 0, again = 0;
      char stop = 0;
      if (std::sscanf(text.c_str(), "%15s %llu %llu%c", what, &id, &again, &stop) != 4 ||
          stop != ';' || id != again)
        continue;
      const std::string word = what;
      if (word == "up") boot_.up = true;
      if (word == "opened") boot_.opened = true;
      if (word == "has") disk.has.insert(id);
      if (word == "sent") disk.sent.insert(id);
      if (word == "acked") {
        disk.acked.insert(id);
        saw_ack_ = true;
      }
    }
  }

  pid_t pid_ = -1;
  int console_ = -1;
  size_t parsed_ = 0;
  bool saw_ack_ = false;
  Boot boot_;
};

class PowerCutTest : public ::testing::Test {
 protected:
  void SetUp() override {
    mkfs_ = FindProgram({"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"});
    if (mkfs_.empty() || FindProgram({"/usr/bin/linux.uml", "/usr/bin/linux"}).empty()) {
      GTEST_SKIP() << "SKIPPED LOUDLY: no power was cut; needs the Debian packages user-mode-linux "
                      "and e2fsprogs";
    }
    Disk probe;
    Format(probe);
    const Boot boot = Machine::Run(probe, "check", std::nullopt);
    if (!boot.up) {
      GTEST_SKIP() << "SKIPPED LOUDLY: no power was cut; User-Mode Linux does not start here: "
                   << Tail(boot.console);
    }
    ASSERT_TRUE(boot.opened) << boot.problem << Tail(boot.console);
  }
  void Format(Disk& disk) {
    WriteFile(disk.image, "");
    std::filesystem::resize_file(disk.image, size_t{128} << 20);
    ASSERT_EQ(std::system((mkfs_ + " -q -F " + disk.image).c_str()), 0);
  }
  static std::string Tail(const std::string& text) {
    return text.substr(text.size() - std::min<size_t>(text.size(), 600));
  }
  std::string mkfs_;
};

TEST_F(PowerCutTest, WhatWasAcknowledgedIsThere) {
  const int cuts = Count(1, 30);
  RandomStream random(3, 0);
  auto disk = std::make_unique<Disk>();
  Format(*disk);
  size_t acked = 0, recovered = 0;
  for (int cut = 0; cut < cuts; ++cut) {
    const size_t before = disk->acked.size();
    const Boot boot = Machine::Run(*disk, "sync", milliseconds(random.NextBelow(900)));
    ASSERT_TRUE(boot.opened) << boot.problem << Tail(boot.console);
    ASSERT_EQ(boot.problem, "");
    ASSERT_GT(disk->acked.size(), before) << "nothing was acknowledged before the power was cut";
    // The same disk goes through several cuts, and then another one begins.
    const Boot after = Machine::Run(*disk, "check", std::nullopt);
    ASSERT_TRUE(after.opened) << "after cut " << cut << ": " << after.problem
                              << Tail(after.console);
    for (const uint64_t id : disk->acked)
      ASSERT_TRUE(disk->has.contains(id)) << "acknowledged and lost: " << id;
    for (const uint64_t id : disk->has)
      ASSERT_TRUE(disk->sent.contains(id)) << "never sent: " << id;
    if (cut % 10 == 9 || cut + 1 == cuts) {
      acked += disk->acked.size();
      recovered += disk->has.size();
      disk = std::make_unique<Disk>();
      Format(*disk);
    }
  }
  std::printf(
      "%d power cuts: %zu groups acknowledged, %zu recovered, none of those acknowledged lost\n",
      cuts, acked, recovered);
}

// The same without syncing has to lose what was acknowledged, or the cut is none.
TEST_F(PowerCutTest, WithoutSyncingItIsLost) {
  const int cuts = Count(1, 5);
  RandomStream random(3, 1);
  size_t acked = 0, lost = 0;
  for (int cut = 0; cut < cuts; ++cut) {
    Disk disk;
    Format(disk);
    ASSERT_TRUE(Machine::Run(disk, "unsynced", milliseconds(random.NextBelow(900))).opened);
    const Boot after = Machine::Run(disk, "check", std::nullopt);
    size_t gone = 0;
    for (const uint64_t id : disk.acked) gone += after.opened && disk.has.contains(id) ? 0 : 1;
    EXPECT_GT(gone, 0u) << "cut " << cut << " of " << disk.acked.size() << " groups";
    acked += disk.acked.size();
    lost += gone;
  }
  std::printf("%d power cuts without syncing: %zu groups acknowledged, %zu lost\n", cuts, acked,
              lost);
}

}  // namespace
}  // namespace plumb::replay
