// What a step is made with that follows from its number: the learning rate, the size of the batch,
// and the clipping of gradients. A run that was killed goes on with the same.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <map>

#include "common/base/crash_point.h"
#include "learner/offline/offline_objective.h"
#include "learner/update/schedule.h"
#include "tests/learner/loop/life.h"

namespace plumb::learner {
namespace {

using configs::LrSchedule;

configs::Config With(LrSchedule schedule) {
  configs::Config config = Recipe();
  config.run.steps = 8;
  config.run.checkpoint_every = 3;
  config.optimizer.lr_schedule = schedule;
  config.optimizer.warmup_fraction = 0.25;
  config.optimizer.decay_fraction = 0.5;
  return config;
}

// Killed before the update of step `at` and taken up.
LearnerResult Killed(const configs::Config& config, int at, std::vector<double>& rates) {
  const TempFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    ArmCrashPointForTest("before_update", at);
    Life(config, folder / "c").Run(false);
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  Life life(config, folder / "c");
  life.hooks.step = [&](int64_t step, std::map<std::string, double>& metrics) {
    rates.resize(static_cast<size_t>(step) + 1);
    rates.back() = metrics["optim/lr"];
  };
  return life.Run(true);
}

TEST(SchedulesTest, EachIsGoneOnWithExactly) {
  for (const LrSchedule schedule :
       {LrSchedule::kConstant, LrSchedule::kLinear, LrSchedule::kCosine, LrSchedule::kWsd}) {
    const configs::Config config = With(schedule);
    const LearnerResult whole = Unbroken(config);
    for (const int at : {2, 5, 8}) {
      std::vector<double> rates;
      ExpectSame(Killed(config, at, rates), whole);
      for (size_t step = 0; step < rates.size(); ++step) {
        if (rates[step] > 0) {
          EXPECT_EQ(rates[step], LearningRate(LrOptionsOf(config), static_cast<int64_t>(step)));
        }
      }
    }
  }
}

// Warm-up, the peak, and a fall over the last share that optimizer.decay_fraction says.
TEST(SchedulesTest, WsdStaysAtItsPeakUntilTheLastPart) {
  configs::Config config = With(LrSchedule::kWsd);
  config.optimizer.learning_rate = 1;
  const auto rate = [&](int64_t step) { return LearningRate(LrOptionsOf(config), step); };
  for (const auto& [step, wanted] : std::map<int64_t, double>{
           {0, 0.5}, {1, 1}, {2, 1}, {4, 1}, {5, 0.75}, {6, 0.5}, {7, 0.25}, {8, 0}})
    EXPECT_DOUBLE_EQ(rate(step), wanted) << step;
  config.optimizer.decay_fraction = 0.25;
  EXPECT_DOUBLE_EQ(rate(6), 1);
  EXPECT_DOUBLE_EQ(rate(7), 0.5);
  config.optimizer.decay_fraction = 1;  // all that is behind the warm-up, and no more
  EXPECT_DOUBLE_EQ(rate(2), 1);
  EXPECT_DOUBLE_EQ(rate(5), 0.5);
  config.optimizer.decay_fraction = 0;
  EXPECT_DOUBLE_EQ(rate(7), 1);
}

TEST(SchedulesTest, ABatchThatGrowsIsGoneOnWithExactly) {
  configs::Config config = With(LrSchedule::kConstant);
  config.rollout.prompts_per_step = 4;
  const LearnerResult flat = Unbroken(config);
  config.optimizer.ramp_steps = 6;
  config.optimizer.ramp_start = 0.25;
  const LearnerResult whole = Unbroken(config);
  EXPECT_LT(whole.tokens, flat.tokens) << "the first batches are smaller";
  EXPECT_EQ(whole.rewards.groups, 1 + 1 + 2 + 2 + 3 + 3 + 4 + 4);
  std::vector<double> rates;
  ExpectSame(Killed(config, 5, rates), whole);
}

// Offline: rows, each once, in the order of the epochs.
TEST(SchedulesTest, RowsOfABatchThatGrowsFollowEachOther) {
  const configs::BatchRamp ramp(6, 4, 0.5);
  std::vector<uint32_t> rows, whole;
  for (int64_t step = 0; step < 6; ++step) {
    const auto batch = OfflineBatch(13, ramp, step, 1, true);
    EXPECT_EQ(static_cast<int64_t>(batch.size()), ramp.Of(step));
    rows.insert(rows.end(), batch.begin(), batch.end());
  }
  for (int64_t step = 0; whole.size() < rows.size(); ++step)
    whole.push_back(OfflineBatch(13, 1, step, 1, true).front());
  EXPECT_EQ(rows, whole);
}

TEST(SchedulesTest, GradientsAreClippedByValueBeforeTheirNorm) {
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.3);
  configs::OptimizerConfig options;
  options.clip_value = 0.5;
  Optimizer optimizer(weights, options);
  EXPECT_FALSE(optimizer.TakeClippedShare());
  optimizer.ZeroGrad();
  optimizer.grad().f32()[0] = 3;
  optimizer.grad().f32()[1] = -4;
  optimizer.grad().f32()[2] = 0.25;
  const UpdateResult result = optimizer.Update(1e-3, 1.0);
  EXPECT_NEAR(result.grad_norm, std::sqrt(0.25 + 0.25 + 0.0625), 1e-9);
  EXPECT_DOUBLE_EQ(*optimizer.TakeClippedShare(),
                   2.0 / static_cast<double>(weights.table().parameters()));
  EXPECT_FALSE(optimizer.TakeClippedShare()) << "of the updates since";
  optimizer.grad().f32()[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(optimizer.Update(1e-3, 1.0).applied) << "the guard still finds it";

  configs::Config config = Recipe();
  const TempFolder folder;
  for (const double bound : {0.0, 1e-6}) {
    config.optimizer.clip_value = bound;
    Life life(config, folder / std::to_string(bound));
    life.hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
      ASSERT_EQ(metrics.contains("optim/clipped_share"), bound > 0);
      if (bound > 0) {
        EXPECT_GT(metrics["optim/clipped_share"], 0.5);
        EXPECT_LE(metrics["optim/clipped_share"], 1);
      }
    };
    life.Run(false);
  }
}

}  // namespace
}  // namespace plumb::learner
