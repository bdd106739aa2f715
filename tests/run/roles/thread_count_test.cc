#include "run/roles/thread_count.h"

#include <gtest/gtest.h>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

TEST(ThreadCountTest, MoreThreadsThanProcessorsAreNamed) {
  configs::Config config;
  for (const int64_t few : {0, 1, 2}) {
    config.run.threads = few;
    EXPECT_EQ(TooManyThreads(config, 2), "") << few;
  }
  config.run.threads = 999;
  const std::string many = TooManyThreads(config, 2);
  EXPECT_TRUE(Has(many, "run.threads = 999, but this process may use 2 processors")) << many;
  EXPECT_TRUE(Has(many, "set run.threads = 2")) << many;
  EXPECT_GE(ProcessorsAllowed(), 1);
}

TEST(ThreadCountTest, APlanWarns) {
  const plumb::testing::TempFolder temp;
  const std::vector<std::string> line = TrainLine(temp / "run", 2, {});
  std::vector<std::string> plan = {"plan", line[1], "--no-time", "--set", "run.threads=999"};
  const CliOutput output = RunPlumb(plan);
  EXPECT_EQ(output.code, 0) << output.err;
  EXPECT_TRUE(Has(output.err, "warning: run.threads = 999")) << output.err;
  plan.back() = "run.threads=1";
  EXPECT_EQ(RunPlumb(plan).err, "");
}

TEST(ThreadCountTest, ARunWarnsBeforeItBegins) {
  const plumb::testing::TempFolder temp;
  std::vector<std::string> train = TrainLine(temp / "run", 0, {});
  train.insert(train.end(), {"--set", "run.threads=999", "--set", "run.parallel=\"dp=2\""});
  const CliOutput output = RunPlumb(train);  // refused behind the warning: ranks need processes
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, "warning: run.threads = 999")) << output.err;
}

}  // namespace
}  // namespace plumb::run::testing
