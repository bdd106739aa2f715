// Signals to a process that says what it is busy with: each state in a child of its own.
#include "run/session/interrupt.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

struct Ended {
  int code = -1;       // exit code; -1: by a signal
  std::string said;    // standard error
  double seconds = 0;  // after the last signal
};

// A process that handles interrupts and runs `body`; what it writes on standard error is read here.
class Child {
 public:
  explicit Child(const std::function<void()>& body) {
    EXPECT_EQ(pipe2(out_, O_CLOEXEC), 0);  // no program started beside it holds its end
    pid_ = fork();
    if (pid_ != 0) {
      close(out_[1]);
      return;
    }
    dup2(out_[1], STDERR_FILENO);
    close(out_[0]);
    close(out_[1]);
    HandleInterrupts();
    body();
    _exit(0);
  }
  ~Child() { close(out_[0]); }

  // Where one came before, it has been taken: late enough to count beside it.
  void Signal(int number = SIGINT) {
    if (last_ != SteadyClock::time_point()) std::this_thread::sleep_for(kSameSignal);
    last_ = SteadyClock::now();
    ::kill(pid_, number);
  }
  // What it writes up to and with `text`.
  std::string Until(const std::string& text) {
    std::string said;
    while (said.find(text) == std::string::npos) {
      char byte = 0;
      if (read(out_[0], &byte, 1) != 1) return said + "<end>";
      said += byte;
    }
    return said;
  }
  Ended Wait() {
    Ended ended;
    for (char byte; read(out_[0], &byte, 1) == 1;) ended.said += byte;
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
    ended.seconds = std::chrono::duration<double>(SteadyClock::now() - last_).count();
    return ended;
  }

 private:
  int out_[2] = {-1, -1};
  pid_t pid_ = -1;
  SteadyClock::time_point last_;
};

void Ready() { [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, "ready\n", 6); }

void WaitFor(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::sleep_for(milliseconds(1));
}

[[noreturn]] void Stuck() {
  for (;;) std::this_thread::sleep_for(milliseconds(100));
}

TEST(InterruptTest, WhoAsksTwiceWhileACheckpointIsSavedWaitsForNothingBehindIt) {
  Child child([] {
    NowBusy(Busy::kSaving);
    raise(SIGINT);
    std::this_thread::sleep_for(kSameSignal);
    raise(SIGINT);
    NowBusy(Busy::kUpdating, "the end");
    Ready();
    NowBusy(Busy::kInOrder);
    Stuck();
  });
  const Ended ended = child.Wait();
  EXPECT_EQ(ended.code, 7);
  EXPECT_EQ(ended.said.substr(ended.said.find("ready")), "ready\nplumb: stopped\n");
}

TEST(InterruptTest, WhatKeepsNothingEndsByItselfOrAfterTheGrace) {
  Child willing([] {
    Ready();
    WaitFor(StopRequested());
    _exit(3);
  });
  willing.Until("ready\n");
  willing.Signal();
  EXPECT_EQ(willing.Wait().code, 3) << "in its own words";

  for (const int number : {SIGINT, SIGTERM}) {
    Child stuck([] {
      NowBusy(Busy::kNothingToKeep, "the same command goes on from here");
      Ready();
      Stuck();
    });
    stuck.Until("ready\n");
    stuck.Signal(number);
    const Ended ended = stuck.Wait();
    EXPECT_EQ(ended.code, 7);
    EXPECT_EQ(ended.said, "plumb: stopped: the same command goes on from here\n");
    EXPECT_GE(ended.seconds, 0.9);
  }

  Child twice([] {
    Ready();
    WaitFor(StopRequested());
    Ready();
    Stuck();
  });
  twice.Until("ready\n");
  twice.Signal();
  twice.Until("ready\n");
  twice.Signal();
  const Ended ended = twice.Wait();
  EXPECT_EQ(ended.code, 7);
  EXPECT_LT(ended.seconds, 0.9) << "before the grace was over";
}

TEST(InterruptTest, ATrainingThatBeginsWithinTheGraceIsNotCutOff) {
  Child child([] {
    Ready();
    WaitFor(StopRequested());
    NowBusy(Busy::kSaving);
    std::this_thread::sleep_for(kGrace + milliseconds(200));
    _exit(5);
  });
  child.Until("ready\n");
  child.Signal();
  EXPECT_EQ(child.Wait().code, 5);
}

TEST(InterruptTest, AWaitingRunGivesUpAndSavesItsLastWholeStep) {
  Child child([] {
    NowBusy(Busy::kWholeWeights, "the answers of step 12");
    Ready();
    WaitFor(StopRequested());
    NowBusy(Busy::kSaving);
    Ready();
    std::this_thread::sleep_for(milliseconds(1000));  // the checkpoint
    _exit(6);
  });
  child.Until("ready\n");
  child.Signal();
  const std::string said = child.Until("ready\n");
  EXPECT_NE(said.find("plumb: stopping: waits no longer for the answers of step 12, saves a "
                      "checkpoint of the last whole step\n"),
            std::string::npos);
  child.Signal();
  const Ended ended = child.Wait();
  EXPECT_EQ(ended.code, 6);
  EXPECT_EQ(ended.said, "plumb: a checkpoint is being saved; Ctrl-C again ends without it\n");
}

TEST(InterruptTest, AnUpdateEndsAtTheSecondWithWhatIsOnDisk) {
  Child child([] {
    NowBusy(Busy::kUpdating, "the end of step 3");
    Ready();
    Stuck();
  });
  child.Until("ready\n");
  child.Signal();
  EXPECT_NE(child.Until("\n").find("waits for the end of step 3"), std::string::npos);
  child.Signal(SIGTERM);
  const Ended ended = child.Wait();
  EXPECT_EQ(ended.code, 7);
  EXPECT_EQ(ended.said,
            "plumb: stopped at once, before the end of step 3: --resume goes on from the newest "
            "checkpoint, without one from the start\n");
}

// As `timeout` sends it, to its child and to the group.
TEST(InterruptTest, ASignalThatIsSentTwiceIsOne) {
  for (const int number : {SIGTERM, SIGINT}) {
    Child child([number] {
      NowBusy(Busy::kUpdating, "the end of step 3");
      raise(number);
      raise(number);
      _exit(5);  // the step is done
    });
    const Ended ended = child.Wait();
    EXPECT_EQ(ended.code, 5) << ended.said;
    EXPECT_TRUE(ended.said.ends_with("Ctrl-C again ends at once\n")) << ended.said;
  }
  Child child([] {
    NowBusy(Busy::kUpdating, "the end of step 3");
    raise(SIGINT);
    raise(SIGTERM);  // of another kind it is a second
    _exit(5);
  });
  EXPECT_EQ(child.Wait().code, 7);
}

TEST(InterruptTest, ACheckpointIsWrittenToItsEndUnlessAskedAThirdTime) {
  for (const bool third : {false, true}) {
    Child child([] {
      NowBusy(Busy::kSaving);
      Ready();
      WaitFor(StopRequested());
      std::this_thread::sleep_for(milliseconds(1000));  // the checkpoint
      _exit(0);
    });
    child.Until("ready\n");
    child.Signal();
    EXPECT_EQ(child.Until("\n"), "plumb: stopping: saves a checkpoint\n");
    child.Signal();
    EXPECT_EQ(child.Until("\n"),
              "plumb: a checkpoint is being saved; Ctrl-C again ends without it\n");
    if (third) child.Signal();
    EXPECT_EQ(child.Wait().code, third ? 7 : 0);
  }
}

TEST(InterruptTest, ASupervisorPassesTheSecondOnAndEndsAtTheThird) {
  Child child([] {
    NowBusy(Busy::kSupervising);
    Ready();
    WaitFor(StopRequested());
    WaitFor(StopAtOnce());
    Ready();
    Stuck();
  });
  child.Until("ready\n");
  child.Signal();
  EXPECT_NE(child.Until("\n").find("in order"), std::string::npos);
  child.Signal();
  child.Until("ready\n");
  child.Signal();
  EXPECT_EQ(child.Wait().code, 7);
}

// A run that is ended at once says how it goes on, and leaves word in its folder that a person
// ended it, wherever that was meanwhile renamed to.
TEST(InterruptTest, ARunEndedAtOnceSaysHowItGoesOnAndLeavesItsMark) {
  for (const Busy busy : {Busy::kUpdating, Busy::kSaving, Busy::kInOrder, Busy::kNothingToKeep}) {
    const plumb::testing::TempFolder temp;
    const std::string run = temp / "run", moved = temp / "moved";
    RealFileSystem().CreateDirectories(run);
    Child child([&] {
      MarkWhenStopped(run);
      AdviseWhenStopped("no word yet");
      AdviseWhenStopped("the newest checkpoint is step 4: go on with X");
      NowBusy(busy, "the end of step 6");
      std::filesystem::rename(run, moved);
      Ready();
      WaitFor(StopRequested());
      Ready();
      Stuck();
    });
    child.Until("ready\n");
    child.Signal();
    child.Until("ready\n");
    EXPECT_FALSE(RealFileSystem().Exists(moved + "/" + kStoppedMark)) << "it may end in order";
    child.Signal();
    if (busy == Busy::kSaving) {
      EXPECT_NE(child.Until("\n").find("Ctrl-C again"), std::string::npos);
      child.Signal();
    }
    const Ended ended = child.Wait();
    EXPECT_EQ(ended.code, 7);
    EXPECT_EQ(ended.said, std::string("plumb: stopped at once") +
                              (busy == Busy::kUpdating ? ", before the end of step 6" : "") +
                              "; the newest checkpoint is step 4: go on with X\n");
    EXPECT_TRUE(RealFileSystem().Exists(moved + "/" + kStoppedMark));
  }
}

TEST(InterruptTest, ALongTextIsCut) {
  Child child([] {
    NowBusy(Busy::kUpdating, std::string(100000, 'x'));
    Ready();
    Stuck();
  });
  child.Until("ready\n");
  child.Signal();
  EXPECT_LT(child.Until("\n").size(), 400u);
  child.Signal();
  EXPECT_EQ(child.Wait().code, 7);
}

TEST(InterruptTest, CtrlCEndsAnAnswerAndNotAConversation) {
  Child child([] {
    NowBusy(Busy::kAnswering);
    Ready();
    WaitFor(AnswerStopped());
    NowBusy(Busy::kAsking, "Ctrl-D leaves");
    Ready();
    std::this_thread::sleep_for(milliseconds(300));
    NowBusy(Busy::kAnswering);
    if (AnswerStopped() || StopRequested()) _exit(4);  // a new answer is nobody's to stop yet
    Ready();
    WaitFor(AnswerStopped());
    Ready();
    Stuck();
  });
  child.Until("ready\n");
  child.Signal();
  child.Until("ready\n");
  child.Signal();
  EXPECT_EQ(child.Until("> "), "plumb: Ctrl-D leaves\n> ");
  child.Until("ready\n");
  child.Signal();
  child.Until("ready\n");
  child.Signal();  // an answer that does not end
  EXPECT_EQ(child.Wait().code, 7);

  for (const Busy busy : {Busy::kAsking, Busy::kAnswering}) {
    Child ended([busy] {
      NowBusy(busy);
      Ready();
      Stuck();
    });
    ended.Until("ready\n");
    ended.Signal(SIGTERM);
    EXPECT_EQ(ended.Wait().code, 7);
  }
}

}  // namespace
}  // namespace plumb::run
