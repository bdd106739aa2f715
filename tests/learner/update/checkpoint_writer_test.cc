// learner/update/checkpoint_writer.h: training goes on while a checkpoint is written, and whatever
// ends the process or the writing in between leaves what was whole. Row 4 of docs/reliability.md.
#include "learner/update/checkpoint_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/crash_action.h"
#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/transformer.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

namespace fs = std::filesystem;
using plumb::testing::TempFolder;

struct Tiny {
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  Optimizer optimizer{weights, {}};
  explicit Tiny(int64_t seed) { Become(seed); }
  void Become(int64_t seed) { weights.Initialise(static_cast<uint64_t>(seed), 0.3); }
};

void Begin(CheckpointWriter& writer, Tiny& tiny, int64_t step, bool optimizer = true) {
  writer.Begin(Checkpoints::Kind::kStep,
               {.step = step,
                .policy = {.version = step, .digest = tiny.weights.ComputeDigest()},
                .optimizer = optimizer,
                .moments = optimizer},
               tiny.weights, tiny.optimizer, {});
}

// The step of the newest, whose weights have to be those that seed makes; -1: none.
int64_t NewestLoads(const Checkpoints& checkpoints) {
  const auto found = checkpoints.FindNewest();
  if (!found) return -1;
  Tiny read(99);
  checkpoints.Load(*found, read.weights, read.optimizer);
  EXPECT_EQ(read.weights.ComputeDigest(), Tiny(found->state.step).weights.ComputeDigest());
  return found->state.step;
}

// The tokenizer is a pipe: writing stands still until somebody writes into it.
TEST(CheckpointWriterTest, TheWeightsMayChangeWhileItWrites) {
  const TempFolder folder;
  fs::create_directory(folder / "tokenizer");
  const std::string pipe = folder / "tokenizer/tokenizer.json";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  Checkpoints checkpoints(folder / "c", 2, folder / "tokenizer");
  CheckpointWriter writer(checkpoints);
  Tiny tiny(3);
  Begin(writer, tiny, 3);
  for (int64_t other = 4; other < 8; ++other) tiny.Become(other);
  EXPECT_TRUE(writer.busy());
  EXPECT_FALSE(writer.Ended(/*wait=*/false)) << "nobody waits for it";
  EXPECT_FALSE(checkpoints.FindNewest());
  std::ofstream(pipe) << "{}";
  const auto seconds = writer.Ended(/*wait=*/true);
  ASSERT_TRUE(seconds);
  EXPECT_GT(*seconds, 0);
  EXPECT_FALSE(writer.busy());
  EXPECT_FALSE(writer.Ended(/*wait=*/true)) << "it is told once";
  EXPECT_EQ(NewestLoads(checkpoints), 3);
  EXPECT_EQ(RealFileSystem().ReadFile(folder / "c/step-00000003/model/tokenizer.json", 10), "{}");
}

TEST(CheckpointWriterTest, WhatItFailedWithComesOutOnce) {
  const TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  CheckpointWriter writer(checkpoints);
  Tiny tiny(1);
  Begin(writer, tiny, 1);
  ASSERT_TRUE(writer.Ended(true));
  fs::rename(folder / "c", folder / "moved");
  Begin(writer, tiny, 2);
  try {
    writer.Ended(/*wait=*/true);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
  }
  EXPECT_FALSE(writer.Ended(true));
  EXPECT_EQ(NewestLoads(Checkpoints(folder / "moved", 2, "")), 1);
}

// The folder goes away or becomes another run's at every place of a write: one error says so, and
// nothing is made or changed where it was.
TEST(CheckpointWriterTest, AFolderThatGoesAwayIsOneErrorAtEveryMoment) {
  for (const std::string place :
       {"checkpoint_copied", "checkpoint_begun", "checkpoint_model_written",
        "checkpoint_before_manifest", "checkpoint_written", "checkpoint_in_place"}) {
    for (const std::string how : {"moved", "removed", "replaced"}) {
      const TempFolder folder;
      const std::string run = folder / "run", at = run + "/c", other = at + "/step-00000002";
      Checkpoints checkpoints(at, 1, "");
      CheckpointWriter writer(checkpoints);
      Tiny tiny(1), critic(5);
      Begin(writer, tiny, 1);
      ASSERT_TRUE(writer.Ended(true));
      ActAtCrashPointForTest(place, [&] {
        if (how == "removed") fs::remove_all(run);
        else fs::rename(run, folder / "away");
        if (how != "replaced") return;
        for (const std::string step : {"1", "2"}) {
          fs::create_directories(at + "/step-0000000" + step);
          std::ofstream(at + "/step-0000000" + step + "/manifest.json") << "of another run";
        }
      });
      const std::vector<NamedModel> models = {
          {.name = "critic", .weights = &critic.weights, .optimizer = &critic.optimizer}};
      try {
        writer.Begin(Checkpoints::Kind::kStep,
                     {.step = 2,
                      .policy = {.version = 2, .digest = tiny.weights.ComputeDigest()},
                      .optimizer = true,
                      .moments = true},
                     tiny.weights, tiny.optimizer, models);
        writer.Ended(/*wait=*/true);
        ADD_FAILURE() << "no error: " << place << ", " << how;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kConflict) << place << ", " << how << ": " << e.what();
        EXPECT_NE(e.message().find("moved, removed or replaced"), std::string::npos)
            << place << ", " << how << ": " << e.what();
      }
      if (how != "replaced") {
        EXPECT_FALSE(fs::exists(run)) << place << ", " << how << ": made again";
        continue;
      }
      EXPECT_EQ(RealFileSystem().List(at),
                (std::vector<std::string>{"step-00000001", "step-00000002"}))
          << place;
      EXPECT_EQ(RealFileSystem().List(other), std::vector<std::string>{"manifest.json"}) << place;
    }
  }
}

// At each place between the copy and the end of the writing, three visits each.
TEST(CheckpointWriterTest, DyingWhileItWritesLosesNothingThatWasThere) {
  policy_model::SetThreads(1);  // a child that is forked here has no other
  for (const std::string place :
       {"checkpoint_copied", "checkpoint_begun", "checkpoint_model_written",
        "checkpoint_before_manifest", "checkpoint_written", "checkpoint_in_place"}) {
    for (int visit = 1; visit <= 3; ++visit) {
      const TempFolder folder;
      const pid_t child = fork();
      if (child == 0) {
        ArmCrashPointForTest(place, visit);
        Checkpoints checkpoints(folder / "c", 1, "");
        CheckpointWriter writer(checkpoints);
        Tiny tiny(0);
        for (int64_t step = 1; step <= 4; ++step) {
          tiny.Become(step);
          Begin(writer, tiny, step);
          tiny.Become(50 + step);
          writer.Ended(/*wait=*/true);
        }
        _exit(0);
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << place << visit;
      Checkpoints checkpoints(folder / "c", 1, "");
      const int64_t whole = place == "checkpoint_in_place" ? visit : visit - 1;
      EXPECT_EQ(NewestLoads(checkpoints), whole == 0 ? -1 : whole) << place << visit;
      Tiny next(7);
      {
        CheckpointWriter writer(checkpoints);
        Begin(writer, next, 7);
      }  // waits
      EXPECT_EQ(NewestLoads(checkpoints), 7);
      EXPECT_EQ(RealFileSystem().List(folder / "c"), std::vector<std::string>{"step-00000007"});
    }
  }
}

// checkpoint.optimizer_every: the models alone in between, each a model folder as it is; the newest
// with the optimizer stays however old it is, and is what a run goes on from.
TEST(CheckpointWriterTest, TheNewestWithAnOptimizerStays) {
  const TempFolder folder;
  Checkpoints checkpoints(folder / "c", 1, "");
  CheckpointWriter writer(checkpoints);
  Tiny tiny(0);
  for (int64_t step = 1; step <= 6; ++step) {
    tiny.Become(step);
    Begin(writer, tiny, step, /*optimizer=*/step == 1 || step == 4);
    writer.Ended(true);
    const int64_t with = step < 4 ? 1 : 4;
    EXPECT_EQ(NewestLoads(checkpoints), with);
    EXPECT_EQ(checkpoints.FindNewest()->passed.empty(), step == with);
    EXPECT_EQ(RealFileSystem().List(folder / "c").size(), step == with ? 1u : 2u) << step;
  }
  const std::string last = folder / "c/step-00000006";
  EXPECT_FALSE(RealFileSystem().Exists(last + "/optimizer.safetensors"));
  policy_model::Weights loaded(TinyShape(), Device::kCpu, DType::kFloat32);
  loaded.Load(last + "/model");
  EXPECT_EQ(loaded.ComputeDigest(), Tiny(6).weights.ComputeDigest());
  checkpoints.PreferNewest();
  EXPECT_EQ(NewestLoads(checkpoints), 6);
}

// Where the one with the optimizer is damaged, a run does not quietly go on from another.
TEST(CheckpointWriterTest, WithoutAnyOptimizerItSaysHowToGoOn) {
  const TempFolder folder;
  Checkpoints checkpoints(folder / "c", 1, "");
  CheckpointWriter writer(checkpoints);
  Tiny tiny(2);
  Begin(writer, tiny, 2, /*optimizer=*/false);
  writer.Ended(true);
  try {
    checkpoints.FindNewest();
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(e.message().find("of step 2 with --resume --newest"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
