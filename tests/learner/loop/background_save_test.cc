// Checkpoints that are written while the steps go on (checkpoint.background) and those without an
// optimizer in between (checkpoint.optimizer_every): what a kill, an error and a resume make of
// them. Rows 4 and 8 of docs/reliability.md.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/loop/step_loop.h"
#include "tests/learner/loop/life.h"

namespace plumb::learner {
namespace {

namespace fs = std::filesystem;

configs::Config Every(int64_t steps) {
  configs::Config config = Recipe();
  config.run.checkpoint_every = steps;
  return config;
}

// The write of step 2 stands still, for its tokenizer is a pipe: steps 3 and 4 are made, and the
// checkpoint of step 4 waits for it.
TEST(BackgroundSaveTest, TheStepsGoOnWhileItIsWritten) {
  const LearnerResult whole = Unbroken(Every(2));
  const TempFolder folder;
  fs::create_directory(folder / "tokenizer");
  const std::string pipe = folder / "tokenizer/tokenizer.json";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  Life life(Every(2), folder / "c");
  life.checkpoints = Checkpoints(folder / "c", 2, folder / "tokenizer");
  std::vector<double> waits;
  std::thread late;
  life.hooks.step = [&](int64_t step, std::map<std::string, double>& metrics) {
    life.lines.push_back(step);
    waits.push_back(metrics["time/checkpoint_wait"]);
    if (step < 2) return;
    if (step < 4) {
      EXPECT_EQ(life.NewestStep(), -1) << "it stands still";
    }
    if (step != 3) return;
    late = std::thread([&] {  // from here on it is waited for
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      for (int checkpoint = 0; checkpoint < 3; ++checkpoint) {
        std::ofstream(pipe) << "{}";
        // The next to read it is another one.
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
  };
  ExpectSame(life.Run(false), whole);
  late.join();
  EXPECT_EQ(life.NewestStep(), 6);
  EXPECT_LT(waits[2] + waits[3], 0.25) << "steps 3 and 4 waited for more than the copy";
  EXPECT_GT(waits[4], 0.25) << "the second waits for the first: one at a time";
}

TEST(BackgroundSaveTest, KilledAnywhereAndResumedEqualsUnbroken) {
  for (const int64_t apart : {1, 2}) {
    configs::Config config = Every(2);
    config.algorithm.name =
        apart == 1 ? configs::AlgorithmName::kGrpo : configs::AlgorithmName::kPpo;
    const LearnerResult whole = Unbroken(config);
    config.checkpoint.optimizer_every = apart;
    for (const std::string place :
         {"before_checkpoint", "checkpoint_copied", "checkpoint_begun", "checkpoint_model_written",
          "checkpoint_before_manifest", "checkpoint_written", "checkpoint_in_place",
          "after_checkpoint"}) {
      for (const int visit : {1, 2}) {
        const TempFolder folder;
        const pid_t child = fork();
        if (child == 0) {
          ArmCrashPointForTest(place, visit);
          Life(config, folder / "c").Run(false);
          _exit(0);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << place << visit;
        Life life(config, folder / "c");
        ExpectSame(life.Run(true), whole);
        EXPECT_EQ(life.NewestStep(), 6) << place << visit;
      }
    }
  }
}

TEST(BackgroundSaveTest, TheWarmStartsToo) {
  configs::Config config = Every(3);
  config.run.steps = 2;
  config.sft.steps = 9;
  config.sft.batch = 8;
  const LearnerResult whole = Unbroken(config);
  for (const std::string place :
       {"checkpoint_copied", "checkpoint_before_manifest", "checkpoint_in_place"}) {
    for (const int visit : {1, 2}) {
      const TempFolder folder;
      const pid_t child = fork();
      if (child == 0) {
        ArmCrashPointForTest(place, visit);
        Life(config, folder / "c").Run(false);
        _exit(0);
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << place << visit;
      Life life(config, folder / "c");
      ExpectSame(life.Run(true), whole);
      EXPECT_TRUE(visit == 1 || HasLine(life.said, "the warm start goes on behind"))
          << place << visit;
    }
  }
}

// The disk is gone while step 2 is written: the run ends with that error, at the latest with the
// checkpoint of step 4, and leaves what a run that had waited for it leaves.
TEST(BackgroundSaveTest, AWriteThatFailsEndsTheRun) {
  for (const bool background : {true, false}) {
    configs::Config config = Every(2);
    config.checkpoint.background = background;
    const TempFolder folder;
    Life life(config, folder / "c");
    life.on_next = [&](int64_t step) {
      if (step == 1) fs::rename(folder / "c", folder / "moved");
    };
    try {
      life.Run(false);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
      EXPECT_NE(e.message().find("moved, removed or replaced"), std::string::npos) << e.what();
    }
    EXPECT_LE(life.lines.size(), 4u);
    EXPECT_TRUE(HasLine(life.said, "could not be saved: ")) << background;
    EXPECT_FALSE(RealFileSystem().Exists(folder / "c"));
  }
}

// Of steps 1..6 the checkpoints of 1, 4 and the last hold the optimizer. Stopped behind step 5 the
// run goes on from there; killed, from step 4; told to, from the weights of step 5 alone.
TEST(BackgroundSaveTest, AnOptimizerIsKeptAtEveryNth) {
  configs::Config config = Every(1);
  config.checkpoint.optimizer_every = 3;
  config.checkpoint.optimizer = configs::KeepOptimizer::kAlways;
  const LearnerResult whole = Unbroken(config);
  for (const bool newest : {false, true}) {
    const TempFolder folder;
    const pid_t child = fork();
    if (child == 0) {
      ArmCrashPointForTest("after_checkpoint", 5);
      Life(config, folder / "c").Run(false);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    EXPECT_TRUE(RealFileSystem().Exists(folder / "c/step-00000004/optimizer.safetensors"));
    EXPECT_FALSE(RealFileSystem().Exists(folder / "c/step-00000005/optimizer.safetensors"));
    Life life(config, folder / "c");
    if (newest) life.checkpoints.PreferNewest();
    const LearnerResult result = life.Run(true);
    EXPECT_EQ(life.lines.front(), newest ? 5 : 4);
    EXPECT_EQ(HasLine(life.said, "step 5 is newer but holds no optimizer"), !newest);
    EXPECT_EQ(HasLine(life.said, "holds the weights alone"), newest);
    EXPECT_EQ(result.optimizer_sha256 == whole.optimizer_sha256, !newest);
    if (!newest) {
      ExpectSame(result, whole);
    }
    EXPECT_TRUE(RealFileSystem().Exists(folder / "c/step-00000006/optimizer.safetensors"))
        << "that of the end";
  }
  const TempFolder folder;
  Life life(config, folder / "c");
  life.on_next = [&](int64_t step) { life.stop = step == 4; };
  EXPECT_EQ(life.Run(false).steps, 5);
  Life next(config, folder / "c");
  ExpectSame(next.Run(true), whole);
  EXPECT_EQ(next.lines.front(), 5) << "that of a stop";
}

}  // namespace
}  // namespace plumb::learner
