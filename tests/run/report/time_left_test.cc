// The time left of simulated runs: what the estimate says at a step against what then happens.
#include "run/report/time_left.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "common/base/rng.h"

namespace plumb::run {
namespace {

struct Times {
  std::function<double(int64_t step)> step;
  double checkpoint = 0, last_checkpoint = 0, evaluation = 0;
};

// Plays the run. What stands at [k]: when k + 1 steps are done, estimated and true.
struct Played {
  std::vector<double> said, truth;
};
Played Play(const RunPlan& plan, const Times& times, int64_t each, int64_t last) {
  TimeLeft left(plan);
  left.Sizes(each, last);
  Played run;
  std::vector<double> at;  // the clock when the line of a step was written
  double now = 0;
  const bool evaluates = times.evaluation > 0;
  if (evaluates) left.Evaluation(times.evaluation);  // of version 0
  for (int64_t step = 0; step < plan.steps; ++step) {
    const int64_t done = step + 1;
    now += times.step(step);
    left.Step(times.step(step), step);
    if (evaluates && plan.eval_every > 0 && done % plan.eval_every == 0 && done < plan.steps) {
      now += times.evaluation;
      left.Evaluation(times.evaluation);
    }
    run.said.push_back(left.After(done));
    at.push_back(now);
    if (plan.checkpoint_every > 0 && done % plan.checkpoint_every == 0 && done < plan.steps) {
      now += times.checkpoint;
      left.Checkpoint(each, times.checkpoint, times.checkpoint);
    }
  }
  now += times.last_checkpoint + times.evaluation;
  for (const double t : at) run.truth.push_back(now - t);
  return run;
}

void ExpectWithin(const Played& run, double share, size_t from, const std::string& what) {
  for (size_t k = from; k < run.said.size(); ++k)
    EXPECT_NEAR(run.said[k], run.truth[k], share * run.truth[k]) << what << ", step " << k + 1;
}

TEST(TimeLeftTest, CountsCheckpointsAndEvaluationsToCome) {
  // Six steps of a second, checkpoints of 12 and 4 seconds, evaluations of 5.
  TimeLeft left({.steps = 6, .checkpoint_every = 2, .eval_every = 3});
  left.Sizes(1200, 400);
  left.Evaluation(5);
  left.Step(1, 0);
  left.Checkpoint(1200, 12, 12);  // an earlier life's, say
  EXPECT_DOUBLE_EQ(left.After(1), 5 + 12 + 12 + 4 + 5 + 5);
  left.Step(1, 1);
  EXPECT_DOUBLE_EQ(left.After(2), 4 + 12 + 12 + 4 + 5 + 5) << "the one of step 2 is still to come";
  EXPECT_DOUBLE_EQ(left.After(3), 3 + 12 + 4 + 5) << "the evaluation of step 3 is over";
  EXPECT_DOUBLE_EQ(left.After(5), 1 + 4 + 5);
  EXPECT_DOUBLE_EQ(left.After(6), 4 + 5) << "what follows the last step";
}

// Beside the steps a checkpoint costs what training waits; that of the end costs all of it.
TEST(TimeLeftTest, CheckpointsBesideTheStepsCostWhatIsWaitedFor) {
  TimeLeft left({.steps = 5, .checkpoint_every = 2, .eval_every = 0});
  left.Sizes(1200, 400, /*beside=*/true);
  left.Step(1, 0);
  left.Checkpoint(1200, 12, 3);
  EXPECT_DOUBLE_EQ(left.After(1), 4 + 3 + 3 + 4);
}

// A batch that grows: a step costs by its share of a whole one.
TEST(TimeLeftTest, StepsOfARampCostTheirShare) {
  TimeLeft left({.steps = 6, .share = [](int64_t step) {
                   return std::min(1.0, 0.25 + 0.25 * static_cast<double>(step));
                 }});
  left.Step(2, 0);
  EXPECT_DOUBLE_EQ(left.After(1), 8 * (0.5 + 0.75 + 3));
  EXPECT_DOUBLE_EQ(left.After(5), 8);
}

// A run as people see it: a slow first step, steps that vary by a quarter, a checkpoint that costs
// two steps, an evaluation that costs three.
TEST(TimeLeftTest, HoldsWithinAFifthOnceAFewStepsAreDone) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream random(seed, 5);
    std::vector<double> seconds;
    for (int step = 0; step < 120; ++step)
      seconds.push_back((step == 0 ? 25 : 8) * (0.75 + 0.5 * random.NextUniform()));
    const Times times{.step = [&](int64_t step) { return seconds[static_cast<size_t>(step)]; },
                      .checkpoint = 15,
                      .last_checkpoint = 5,
                      .evaluation = 24};
    const auto what = "seed " + std::to_string(seed);
    for (const int64_t steps : {12, 120}) {
      const Played run = Play({.steps = steps, .checkpoint_every = 10, .eval_every = 25}, times,
                              1'600'000'000, 540'000'000);
      ExpectWithin(run, 0.2, 5, what + ", of " + std::to_string(steps));
    }
  }
}

// A disk four times as slow as was taken for granted is known after the first checkpoint.
TEST(TimeLeftTest, ASlowDiskIsLearned) {
  const Times times{.step = [](int64_t) { return 1.0; }, .checkpoint = 40, .last_checkpoint = 40};
  const Played run = Play({.steps = 100, .checkpoint_every = 10, .eval_every = 0}, times,
                          1'500'000'000, 1'500'000'000);
  ExpectWithin(run, 0.01, 10, "behind the first");
  EXPECT_LT(run.said[5], run.truth[5] / 2);
}

// Answers that grow longer: the last steps count, not the whole run.
TEST(TimeLeftTest, FollowsStepsThatBecomeSlower) {
  const Times times{.step = [](int64_t step) { return step < 50 ? 2.0 : 6.0; }};
  const Played run = Play({.steps = 200, .checkpoint_every = 0, .eval_every = 0}, times, 0, 0);
  ExpectWithin(run, 0.01, 50 + TimeLeft::kWindow, "behind the change");
}

// Others leave the machine: what was slow is forgotten before the window has passed.
TEST(TimeLeftTest, FollowsStepsThatBecomeQuicker) {
  const Times times{.step = [](int64_t step) { return step < 50 ? 6.0 : 2.0; }};
  const Played run = Play({.steps = 200, .checkpoint_every = 0, .eval_every = 0}, times, 0, 0);
  ExpectWithin(run, 0.2, 75, "25 steps behind the change");
}

}  // namespace
}  // namespace plumb::run
