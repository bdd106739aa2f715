// run/commands/training: the hidden verb, and what its processes say at their end.
#include "run/commands/training/role_process.h"

#include <gtest/gtest.h>

#include "run/commands/training/run_end.h"
#include "run/session/interrupt.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
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

}  // namespace
}  // namespace plumb::run
