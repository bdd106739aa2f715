#include "run/commands/plan/plan_command.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/run/toy_run.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;

std::vector<std::string> PlanLine(const TempFolder& temp, std::vector<std::string> more) {
  const std::vector<std::string> line = TrainLine(temp / "run", 2, {});
  std::vector<std::string> plan = {"plan", line[1]};
  plan.insert(plan.end(), line.begin() + 6, line.end());
  plan.insert(plan.end(), more.begin(), more.end());
  return plan;
}

TEST(PlanCommandTest, JsonHasTheTimeByPhase) {
  const TempFolder temp;
  const CliOutput output = RunPlumb(PlanLine(temp, {"--json", "--gpu", "h200"}));
  ASSERT_EQ(output.code, 0) << output.err;
  const nlohmann::json time = nlohmann::json::parse(output.out)["time"];
  double sum = 0;
  for (const char* phase : {"generate_s", "train_s", "publish_s"}) {
    EXPECT_GT(time[phase].get<double>(), 0) << phase;
    sum += time[phase].get<double>();
  }
  EXPECT_DOUBLE_EQ(time["step_s"].get<double>(), sum);
  EXPECT_TRUE(Has(time["speeds"].get<std::string>(), "h200, published"));
  EXPECT_LE(time["fastest"]["step_s"].get<double>(), sum);
}

TEST(PlanCommandTest, WithoutTimeNothingIsMeasured) {
  const TempFolder temp;
  const CliOutput text = RunPlumb(PlanLine(temp, {"--no-time"}));
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(Has(text.out, "free  ")) << text.out;
  EXPECT_FALSE(Has(text.out, "time a step") || Has(text.out, "measured here")) << text.out;
  const CliOutput json = RunPlumb(PlanLine(temp, {"--no-time", "--json"}));
  EXPECT_TRUE(nlohmann::json::parse(json.out)["time"].is_null()) << json.out;
}

// libgomp says what it read when it was loaded.
TEST(PlanCommandTest, ThreadsOfAPlanSpinAsBrieflyAsThoseOfARun) {
  const TempFolder temp;
  const std::string line = "env -u GOMP_SPINCOUNT -u OMP_WAIT_POLICY OMP_DISPLAY_ENV=verbose " +
                           plumb::testing::BinaryPath("plumb") + " plan --help 2>&1";
  FILE* pipe = popen(line.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char part[4096];
  for (size_t n; (n = fread(part, 1, sizeof part, pipe)) > 0;) said.append(part, n);
  EXPECT_EQ(pclose(pipe), 0) << said;
  EXPECT_TRUE(Has(said, "GOMP_SPINCOUNT = '1000'")) << said;
}

}  // namespace
}  // namespace plumb::run::testing
