#include "run/board/watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "common/base/file.h"
#include "run/session/run_lock.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::MadeRun;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Waits until the file has this text; all of it.
std::string WaitFor(const std::string& path, const std::string& text) {
  std::string all;
  for (int i = 0; i < 500; ++i) {
    all = RealFileSystem().ReadFile(path, size_t{1} << 20);
    if (Has(all, text)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return all;
}

TEST(WatchAsLinesTest, OneLineAStepThroughAResumeUntilTheRunIsOver) {
  const TempFolder temp;
  MadeRun made;
  made.steps = 5;
  made.summary = false;
  RunMaker maker(temp / "a", made);
  maker.WriteAll();
  auto lock = std::make_unique<RunLock>(temp / "a");
  const std::string path = temp / "out";
  std::FILE* out = std::fopen(path.c_str(), "w");
  ASSERT_NE(out, nullptr);
  std::thread watch([&] { WatchAsLines(temp / "a", {.hertz = 10}, out); });
  std::string text = WaitFor(path, "step 5/400");
  EXPECT_FALSE(Has(text, "step 4/")) << "of what was there before, the last step alone";
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(5) + maker.MetricsLine(6));
  text = WaitFor(path, "step 7/400");
  EXPECT_TRUE(Has(text, "step 6/400"));
  EXPECT_TRUE(Has(text, "  reward 0."));
  RealFileSystem().WriteFileAtomic(temp / "a/metrics.jsonl",
                                   maker.MetricsLine(0) + maker.MetricsLine(1));
  text = WaitFor(path, "-- goes on from step 3");
  EXPECT_TRUE(Has(text, "-- goes on from step 3"));
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(2));
  text = WaitFor(path, "step 3/400");
  EXPECT_TRUE(Has(text, "\nstep 3/400"));
  maker.Put("logs/train.log", "x ended by an error: the disk is full\n");
  lock.reset();
  watch.join();
  std::fclose(out);
  EXPECT_TRUE(WaitFor(path, "failed").ends_with("\nfailed: the disk is full\n"));
}

TEST(WatchAsLinesTest, EndsWhenAsked) {
  const TempFolder temp;
  MadeRun made;
  made.steps = 1;
  made.summary = false;
  RunMaker(temp / "a", made).WriteAll();
  const RunLock lock(temp / "a");
  std::FILE* out = std::fopen("/dev/null", "w");
  std::atomic<bool> stop{false};
  std::thread watch([&] { WatchAsLines(temp / "a", {.hertz = 0.1, .stop = &stop}, out); });
  stop = true;
  watch.join();
  std::fclose(out);
}

// `plumb watch` on a terminal of its own.
class Terminal {
 public:
  Terminal(const std::string& run, int columns, int rows) {
    winsize size{static_cast<uint16_t>(rows), static_cast<uint16_t>(columns), 0, 0};
    const std::string program = plumb::testing::BinaryPath("plumb");
    child_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (child_ == 0) {
      setenv("TERM", "xterm", 1);
      execl(program.c_str(), "plumb", "watch", run.c_str(), "--rate", "10",
            static_cast<char*>(nullptr));
      _exit(127);
    }
  }
  ~Terminal() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(fd_);
  }
  Terminal(const Terminal&) = delete;

  bool Wait(const std::string& text) {
    for (int i = 0; i < 300 && !Has(said, text); ++i) Read();
    return Has(said, text);
  }
  void Press(const std::string& keys) {
    ASSERT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  void Resize(int columns, int rows) {
    winsize size{static_cast<uint16_t>(rows), static_cast<uint16_t>(columns), 0, 0};
    ioctl(fd_, TIOCSWINSZ, &size);
  }
  // Its exit code; -1: it goes on.
  int End() {
    for (int i = 0; i < 300; ++i) {
      // what has hung up is read without waiting
      if (!Read()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      int status = 0;
      if (waitpid(child_, &status, WNOHANG) == child_) {
        child_ = -1;
        while (Read()) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
      }
    }
    return -1;
  }
  int fd() const { return fd_; }
  pid_t child() const { return child_; }
  std::string said;

 private:
  bool Read() {
    pollfd item{fd_, POLLIN, 0};
    if (poll(&item, 1, 20) <= 0) return false;
    char chunk[4096];
    const ssize_t n = read(fd_, chunk, sizeof chunk);
    if (n <= 0) return false;
    said.append(chunk, static_cast<size_t>(n));
    return true;
  }
  int fd_ = -1;
  pid_t child_ = -1;
};

class WatchTerminalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    made_.steps = 20;
    made_.summary = false;
    maker_ = std::make_unique<RunMaker>(temp_ / "demo", made_);
    maker_->WriteAll();
    lock_ = std::make_unique<RunLock>(temp_ / "demo");
  }
  TempFolder temp_;
  MadeRun made_;
  std::unique_ptr<RunMaker> maker_;
  std::unique_ptr<RunLock> lock_;
};

TEST_F(WatchTerminalTest, FollowsResizesAndLeavesTheTerminalAsItWas) {
  Terminal terminal(temp_ / "demo", 80, 24);
  termios before{}, during{}, after{};
  tcgetattr(terminal.fd(), &before);
  ASSERT_TRUE(terminal.Wait("step 20/400")) << terminal.said;
  EXPECT_TRUE(Has(terminal.said, "\x1b[?1049h")) << "another screen";
  tcgetattr(terminal.fd(), &during);
  EXPECT_EQ(during.c_lflag & (ICANON | ECHO), 0u);
  maker_->AppendTo("metrics.jsonl", maker_->MetricsLine(20));
  EXPECT_TRUE(terminal.Wait("step 21/400"));
  terminal.said.clear();
  terminal.Resize(150, 50);
  // three charts in a row have room now
  EXPECT_TRUE(terminal.Wait("policy/clip_fraction")) << terminal.said;
  terminal.Press("q");
  EXPECT_EQ(terminal.End(), 0);
  EXPECT_TRUE(Has(terminal.said, "\x1b[?25h\x1b[?1049l")) << "cursor and screen come back";
  tcgetattr(terminal.fd(), &after);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
}

TEST_F(WatchTerminalTest, CtrlCAndASignalEndItInOrder) {
  for (const bool by_key : {true, false}) {
    Terminal terminal(temp_ / "demo", 80, 24);
    ASSERT_TRUE(terminal.Wait("step 20/400"));
    if (by_key) terminal.Press("\x03");
    else kill(terminal.child(), SIGTERM);
    EXPECT_EQ(terminal.End(), 0) << by_key;
    EXPECT_TRUE(Has(terminal.said, "\x1b[?25h\x1b[?1049l")) << by_key;
  }
}

}  // namespace
}  // namespace plumb::run
