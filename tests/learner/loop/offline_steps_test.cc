// learner/loop/offline_loop.h over an objective that does as it is told: what a kill, an error and
// weights that are not finite leave of a run without rollouts.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <new>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/loop/offline_loop.h"
#include "tests/learner/loop/short_run.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::TempFolder;

struct Toy : OfflineObjective {
  policy_model::Weights& weights;
  Optimizer& optimizer;
  std::function<void(int64_t step)> on_train;
  bool heldout = true;
  Toy(policy_model::Weights& w, Optimizer& o) : weights(w), optimizer(o) {}
  int64_t size() const override { return 8; }
  std::map<std::string, double> Train(std::span<const uint32_t>, double rate,
                                      int64_t step) override {
    optimizer.ZeroGrad();
    for (const auto& e : weights.table().entries())
      optimizer.grad().f32()[e.offset] = 0.1f + 0.01f * static_cast<float>(step);
    if (on_train) on_train(step);
    optimizer.Update(rate, 1.0);
    return {{"perf/train_tokens", 10.0}, {"perf/shared_tokens", 0.0}};
  }
  bool holds_out() const override { return heldout; }
  OfflineEval Evaluate() override {
    return {.loss = 0.5, .accuracy = 0.25, .margin = 0.125, .examples = 4};
  }
};

struct OfflineLife {
  configs::Config config = Recipe();
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  Optimizer optimizer{Initialised(weights), config.optimizer};
  Toy toy{weights, optimizer};
  Checkpoints checkpoints;
  LearnerHooks hooks;
  std::vector<std::string> said;
  std::vector<int64_t> lines;
  explicit OfflineLife(const std::string& folder) : checkpoints(folder, 2, "") {
    policy_model::SetThreads(1);
    config.eval.every = 2;
    hooks.phase = [this](const std::string& name) { said.push_back(name); };
    hooks.step = [this](int64_t step, std::map<std::string, double>&) { lines.push_back(step); };
  }
  static policy_model::Weights& Initialised(policy_model::Weights& weights) {
    weights.Initialise(3, 0.2);
    return weights;
  }
  LearnerResult Run(bool resume) {
    return RunOffline(config, {.batch = 4}, toy, weights, optimizer, checkpoints, hooks, resume);
  }
};

// Killed while a due checkpoint is made: its step has its line by then, or is done again.
TEST(OfflineStepsTest, EveryStepHasOneLineWhereverTheRunIsKilled) {
  const TempFolder unbroken;
  const LearnerResult whole = OfflineLife(unbroken / "c").Run(false);
  for (const std::string place :
       {"before_checkpoint", "checkpoint_written", "checkpoint_in_place", "after_checkpoint"}) {
    const TempFolder folder;
    const std::string log = folder / "lines";
    const auto run = [&](bool resume) {
      OfflineLife life(folder / "c");
      life.config.run.checkpoint_every = 2;
      life.config.checkpoint.background = false;
      life.hooks.step = [&](int64_t step, std::map<std::string, double>& metrics) {
        EXPECT_EQ(metrics.count("eval/loss") > 0, step == 1 || step == 3);
        std::ofstream(log, std::ios::app) << step << "\n";
      };
      return life.Run(resume);
    };
    const pid_t child = fork();
    if (child == 0) {
      ArmCrashPointForTest(place, 1);
      run(false);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << place;
    EXPECT_EQ(RealFileSystem().ReadFile(log, 1000), "0\n1\n")
        << place << ": the line of the step whose checkpoint it is";
    const LearnerResult result = run(true);
    ExpectSame(result, whole);
    ASSERT_TRUE(result.before && result.before->loss);
    EXPECT_EQ(*result.before->loss, 0.5);
    EXPECT_EQ(result.before->reward, 0.125);
  }
}

TEST(OfflineStepsTest, ASkippedUpdateAndWeightsThatAreNotFiniteAreNotSaved) {
  const TempFolder folder;
  OfflineLife life(folder / "a");
  life.config.run.checkpoint_every = 1;
  life.toy.on_train = [&](int64_t step) {
    if (step >= 3) life.optimizer.grad().f32()[0] = std::numeric_limits<float>::quiet_NaN();
  };
  EXPECT_THROW(life.Run(false), Error);
  EXPECT_EQ(life.checkpoints.FindNewest()->state.step, 3) << "the last that was applied";
  EXPECT_EQ(life.checkpoints.FindNewest()->state.counters.skipped_in_a_row, 0);

  OfflineLife spoiled(folder / "b");
  spoiled.hooks.step = [&](int64_t step, std::map<std::string, double>&) {
    if (step == 5) spoiled.weights.flat().f32()[7] = std::numeric_limits<float>::infinity();
  };
  EXPECT_THROW(spoiled.Run(false), Error);
  EXPECT_FALSE(spoiled.checkpoints.FindNewest());
}

TEST(OfflineStepsTest, WhereNothingIsHeldOutNoEvaluationIsAnnounced) {
  for (const bool heldout : {true, false}) {
    const TempFolder folder;
    OfflineLife life(folder / "c");
    life.toy.heldout = heldout;
    const LearnerResult result = life.Run(false);
    EXPECT_EQ(result.after.has_value(), heldout);
    const auto announced = [](const std::string& line) { return line.starts_with("evaluating"); };
    EXPECT_EQ(std::any_of(life.said.begin(), life.said.end(), announced), heldout);
  }
}

TEST(OfflineStepsTest, AnErrorLeavesTheGoodSteps) {
  const TempFolder folder, unbroken;
  OfflineLife life(folder / "c");
  life.toy.on_train = [](int64_t step) {
    if (step == 3) throw std::bad_alloc();
  };
  EXPECT_THROW(life.Run(false), std::bad_alloc);
  EXPECT_EQ(life.checkpoints.FindNewest()->state.step, 3);
  ExpectSame(OfflineLife(folder / "c").Run(true), OfflineLife(unbroken / "c").Run(false));
}

}  // namespace
}  // namespace plumb::learner
