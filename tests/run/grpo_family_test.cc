// Every toy recipe of the GRPO family reaches the bar that it names (eval.bar), through plumb train.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

class GrpoFamilyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GrpoFamilyTest, ReachesItsBar) {
  const plumb::testing::TempFolder temp;
  const std::string run = temp / "run", recipe = std::string(PLUMB_SOURCE_DIR "/configs/toy_") + GetParam() + ".toml";
  const auto out = testing::RunPlumb({"train", recipe, "--out", run, "--quiet", "--set", "metrics.tensorboard=false"});
  EXPECT_EQ(out.code, 0) << out.err;  // 7: below the bar
  const auto summary = nlohmann::json::parse(RealFileSystem().ReadFile(run + "/summary.json", 1 << 20));
  EXPECT_GE(summary["eval"]["after"]["accuracy"].get<double>(), 0.9);
  EXPECT_LE(summary["eval"]["before"]["accuracy"].get<double>(), 0.5) << "nothing to learn: the bar would say nothing";
}

INSTANTIATE_TEST_SUITE_P(Recipes, GrpoFamilyTest,
                         ::testing::Values("grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "cispo"));

// A run that does not train ends below its bar, and says so by its exit code.
TEST(GrpoFamilyBarTest, ARunBelowItsBarExitsWith7) {
  const plumb::testing::TempFolder temp;
  const auto out = testing::RunPlumb({"train", PLUMB_SOURCE_DIR "/configs/toy_grpo.toml", "--out", temp / "run", "--steps", "1"});
  EXPECT_EQ(out.code, 7);
  EXPECT_TRUE(testing::Has(out.err, "eval.bar")) << out.err;
}

}  // namespace
}  // namespace plumb::run
