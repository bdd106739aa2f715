// run/commands/training: the hidden verb, and what its processes say at their end.
#include "run/commands/training/role_process.h"

#include <gtest/gtest.h>

#include <cmath>

#include "run/commands/training/run_end.h"
#include "run/session/interrupt.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

TEST(RoleProcess, AnUnknownRoleIsNamed) {
  const TempFolder temp;
  ASSERT_EQ(testing::Train(temp / "run", 1).code, 0);
  const auto output = RunPlumb({"role-process", "--run", temp / "run", "--role", "teacher",
                                "--sockets", temp / "sockets", "--called", "plumb"});
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, "unknown role 'teacher'")) << output.err;
}

TEST(RunEnd, AStopBeforeTheFirstUpdateTrainedFewerSteps) {
  EXPECT_EQ(SayStopped(), kExitFewerSteps);
  EXPECT_EQ(Stopped(), StopRequested().load());
  const RunOptions options = OptionsOf(/*resume=*/true, /*newest=*/false, /*quiet=*/true);
  EXPECT_TRUE(options.resume && options.quiet && !options.newest);
  EXPECT_EQ(options.stop, &StopRequested());
}

TEST(RunEnd, ARunWhoseNumbersAreNotFiniteIsNoSuccess) {
  configs::Config config;
  const double nan = std::nan("");
  learner::LearnerResult r;
  EXPECT_EQ(WhySpoilt(config, r), "");
  r.steps = 3;
  r.updates = 2, r.skipped_updates = 1;
  r.after = learner::EvalResult{.loss = 1.5};
  EXPECT_EQ(WhySpoilt(config, r), "") << "one in the middle";
  EXPECT_EQ(SkippedText(config, r), "1 of 3 updates were skipped: not finite");
  r.after->loss = nan;
  EXPECT_TRUE(Has(WhySpoilt(config, r), "held out gives numbers that are not finite"));
  r.after->loss = 1.5;
  r.after->reward = nan;
  EXPECT_TRUE(Has(WhySpoilt(config, r), "held out gives numbers that are not finite"));
  r.after.reset();
  r.updates = 1, r.skipped_updates = r.skipped_at_end = 2;
  EXPECT_TRUE(Has(WhySpoilt(config, r), "its last 2 updates were skipped")) << WhySpoilt(config, r);
  r.updates = 0;
  EXPECT_TRUE(Has(WhySpoilt(config, r), "a lower learning rate")) << WhySpoilt(config, r);
  // Where only the scale of the loss was too large there is nothing wrong with the learning rate.
  r.skipped_at_end = 0;
  config.optimizer.loss_scale = 1 << 24;
  const std::string scaled = WhySpoilt(config, r);
  EXPECT_TRUE(Has(scaled, "optimizer.loss_scale = 16777216")) << scaled;
  EXPECT_TRUE(Has(scaled, "--resume --steps N")) << scaled;
  EXPECT_FALSE(Has(scaled, "learning rate")) << scaled;
}

TEST(RunEnd, ADivergedRunEndsWithItsExitCode) {
  const TempFolder temp;
  const auto run =
      RunPlumb({"train", plumb::testing::SourcePath("configs/toy_sft.toml"), "--out", temp / "run",
                "--steps", "3", "--set", "optimizer.learning_rate=1e9", "--set", "run.threads=1"});
  EXPECT_EQ(run.code, 8) << run.out << run.err;
  EXPECT_TRUE(Has(run.err, "the run diverged: its last 2 updates were skipped")) << run.err;
  EXPECT_TRUE(Has(run.out, "2 of 3 updates were skipped: not finite")) << run.out;
  EXPECT_FALSE(Has(run.out, "try:  ")) << run.out;
}

}  // namespace
}  // namespace plumb::run
