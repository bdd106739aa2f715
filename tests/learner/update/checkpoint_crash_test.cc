// A process that dies while it saves, at each named place and in between: what was there before is
// there, the next life goes on from the newest whole one, and what lies half-made is cleared away
// by its first save. Row 4 of docs/reliability.md.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/update/checkpoint.h"
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
  explicit Tiny(int64_t seed) { weights.Initialise(static_cast<uint64_t>(seed), 0.3); }
};

// Of the model that seed `step` makes, so that what is loaded tells which it was.
CheckpointState StateOf(int64_t step, const Tiny& tiny) {
  return {.step = step,
          .policy = {.version = step, .digest = tiny.weights.ComputeDigest()},
          .store_cursor = step * 8};
}

void Save(Checkpoints& checkpoints, int64_t step) {
  Tiny tiny(step);
  checkpoints.Save(StateOf(step, tiny), tiny.weights, tiny.optimizer);
}

// The step of the newest, whose weights have to be the ones that were saved as it; -1: none.
int64_t NewestLoads(const Checkpoints& checkpoints) {
  const auto found = checkpoints.FindNewest();
  if (!found) return -1;
  Tiny read(99);
  checkpoints.Load(*found, read.weights, read.optimizer);
  EXPECT_EQ(read.weights.ComputeDigest(), Tiny(found->state.step).weights.ComputeDigest());
  return found->state.step;
}

void Damage(const std::string& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(3000);
  file.put('\x5a');
}

std::vector<std::string> Names(const std::string& folder) { return RealFileSystem().List(folder); }

// What lies under the name by now may be another run's.
TEST(CheckpointFolder, MovedOrReplacedItGetsNothing) {
  const TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  Save(checkpoints, 1);
  fs::rename(folder / "c", folder / "moved");
  const auto refused = [&] {
    try {
      Save(checkpoints, 2);
    } catch (const Error& e) {
      return e.code() == ErrorCode::kConflict && e.where() == folder / "c";
    }
    return false;
  };
  EXPECT_TRUE(refused());
  EXPECT_FALSE(fs::exists(folder / "c")) << "it was not made anew";
  fs::create_directory(folder / "c");
  EXPECT_TRUE(refused());
  EXPECT_TRUE(fs::is_empty(folder / "c"));
  EXPECT_EQ(NewestLoads(Checkpoints(folder / "moved", 2, "")), 1);
}

// The signal that ended a child which did `body` with the place armed. One thread from here on: a
// child has no other.
int Dies(const std::string& place, int visit, const std::function<void()>& body) {
  policy_model::SetThreads(1);
  const pid_t child = fork();
  if (child == 0) {
    ArmCrashPointForTest(place, visit);
    body();
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(CheckpointCrashTest, DyingWhileItSavesLosesNothingThatWasThere) {
  for (const int64_t keep : {1, 2}) {
    for (const std::string place : {"checkpoint_written", "checkpoint_in_place"}) {
      for (int visit = 1; visit <= 3; ++visit) {
        TempFolder folder;
        ASSERT_EQ(Dies(place, visit,
                       [&] {
                         Checkpoints checkpoints(folder / "c", keep, "");
                         for (int64_t step = 1; step <= 4; ++step) Save(checkpoints, step);
                       }),
                  SIGKILL)
            << place;
        Checkpoints checkpoints(folder / "c", keep, "");
        EXPECT_EQ(NewestLoads(checkpoints), place == "checkpoint_in_place" ? visit
                                            : visit == 1                   ? -1
                                                                           : visit - 1)
            << place << visit;
        Save(checkpoints, 7);
        EXPECT_EQ(NewestLoads(checkpoints), 7);
        for (const std::string& name : Names(folder / "c"))
          EXPECT_TRUE(name.starts_with("step-")) << name;
        EXPECT_LE(Names(folder / "c").size(), static_cast<size_t>(keep));
      }
    }
  }
}

// The newest was damaged, the run went on from the one before and comes to that step again: the one
// it lives on stays until the new one is in its place, wherever the process dies.
TEST(CheckpointCrashTest, AStepThatIsSavedAgainReplacesTheOneThatCouldNotBeUsed) {
  for (const std::string place :
       {"checkpoint_written", "checkpoint_aside", "checkpoint_in_place", "never"}) {
    TempFolder folder;
    Checkpoints checkpoints(folder / "c", 2, "");
    for (const int64_t step : {1, 2}) Save(checkpoints, step);
    Damage(folder / "c/step-00000002/optimizer.safetensors");
    ASSERT_EQ(NewestLoads(checkpoints), 1);
    EXPECT_EQ(Dies(place, 1, [&] { Save(checkpoints, 2); }), place == "never" ? 0 : SIGKILL)
        << place;
    EXPECT_EQ(NewestLoads(checkpoints), place == "checkpoint_in_place" || place == "never" ? 2 : 1)
        << place;
    Save(checkpoints, 2);
    EXPECT_EQ(NewestLoads(checkpoints), 2) << place;
    EXPECT_EQ(Names(folder / "c"), (std::vector<std::string>{"step-00000001", "step-00000002"}))
        << place;
  }
}

// One that could not be used does not count among those that are kept.
TEST(CheckpointCrashTest, ADamagedOneDoesNotPushOutTheOneThatTheRunLivesOn) {
  TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  for (const int64_t step : {2, 9}) Save(checkpoints, step);
  Damage(folder / "c/step-00000009/optimizer.safetensors");
  ASSERT_EQ(NewestLoads(checkpoints), 2);
  Save(checkpoints, 4);
  EXPECT_EQ(Names(folder / "c"),
            (std::vector<std::string>{"step-00000002", "step-00000004", "step-00000009"}));
  EXPECT_EQ(NewestLoads(checkpoints), 4);
}

// A disk that is full in the middle: here a file that may not grow.
TEST(CheckpointCrashTest, AFullDiskLeavesTheOldOnesAndNoRemains) {
  TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  for (const int64_t step : {1, 2}) Save(checkpoints, step);
  policy_model::SetThreads(1);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 60000, .rlim_max = 60000};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      Save(checkpoints, 3);
      _exit(1);
    } catch (const Error& e) {
      _exit(e.where().empty() ? 2 : 0);
    }
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: it was saved all the same; 2: the error names no place";
  EXPECT_EQ(Names(folder / "c"), (std::vector<std::string>{"step-00000001", "step-00000002"}));
  EXPECT_EQ(NewestLoads(checkpoints), 2);
}

TEST(CheckpointCrashTest, OfAWarmStartTheNewestWholeOneIsFoundUntilTheRunHasOneOfItsOwn) {
  TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  std::vector<std::string> rejected;
  EXPECT_FALSE(checkpoints.FindWarmStart(rejected));
  for (const int64_t updates : {5, 10, 15}) {
    Tiny tiny(updates);
    CheckpointState state = StateOf(updates, tiny);
    state.policy.version = -1;
    state.state_json = "{\"sft\":{\"steps\":" + std::to_string(updates) + "}}";
    checkpoints.SaveWarmStart(state, tiny.weights, tiny.optimizer);
  }
  EXPECT_EQ(Names(folder / "c"),
            (std::vector<std::string>{"warm-start-00000010", "warm-start-00000015"}));
  EXPECT_FALSE(checkpoints.FindNewest()) << "a run goes on from its own steps only";
  EXPECT_EQ(checkpoints.OldestCursor(), 0);
  Damage(folder / "c/warm-start-00000015/model/model.safetensors");
  const auto found = checkpoints.FindWarmStart(rejected);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.step, 10);
  EXPECT_EQ(found->state.policy.version, -1);
  EXPECT_EQ(rejected.size(), 1u);
  Damage(folder / "c/warm-start-00000010/optimizer.safetensors");
  EXPECT_FALSE(checkpoints.FindWarmStart(rejected)) << "it can be made anew";
  Save(checkpoints, 0);
  EXPECT_EQ(Names(folder / "c"), (std::vector<std::string>{"step-00000000"}));
}

}  // namespace
}  // namespace plumb::learner
