// Every toy recipe of the GRPO family reaches the bar that it names (eval.bar), through plumb
// train.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

class GrpoFamilyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GrpoFamilyTest, ReachesItsBar) {
  const plumb::testing::TempFolder temp;
  const std::string run = temp / "run",
                    recipe = std::string(PLUMB_SOURCE_DIR "/configs/toy_") + GetParam() + ".toml";
  const auto out = testing::RunPlumb(
      {"train", recipe, "--out", run, "--quiet", "--set", "metrics.tensorboard=false"});
  EXPECT_EQ(out.code, 0) << out.err;  // 7: below the bar
  const auto summary =
      nlohmann::json::parse(RealFileSystem().ReadFile(run + "/summary.json", 1 << 20));
  EXPECT_GE(summary["eval"]["after"]["accuracy"].get<double>(), 0.9);
  EXPECT_LE(summary["eval"]["before"]["accuracy"].get<double>(), 0.5)
      << "nothing to learn: the bar would say nothing";
}

INSTANTIATE_TEST_SUITE_P(Recipes, GrpoFamilyTest,
                         ::testing::Values("grpo", "dr_grpo", "dapo", "gspo", "rloo",
                                           "reinforce_pp", "cispo", "new_model"));

// Dynamic sampling: groups without a gradient are replaced and counted, and the run is the same
// whatever the size of its batches.
TEST(GrpoFamilyRefillTest, ReplacesGroupsOfEqualRewardAndSaysHowMany) {
  const plumb::testing::TempFolder temp;
  const auto summary = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> line = {"train",
                                     PLUMB_SOURCE_DIR "/configs/toy_dapo.toml",
                                     "--out",
                                     temp / name,
                                     "--quiet",
                                     "--steps",
                                     "12",
                                     "--set",
                                     "eval.bar=0",
                                     "--set",
                                     "metrics.tensorboard=false"};
    line.insert(line.end(), more.begin(), more.end());
    const auto out = testing::RunPlumb(line);
    EXPECT_EQ(out.code, 0) << out.err;
    return nlohmann::json::parse(
        RealFileSystem().ReadFile(temp / (name + "/summary.json"), 1 << 20));
  };
  const auto refilled = summary("refilled", {}),
             off = summary("off", {"--set", "algorithm.refill_rounds=0"});
  EXPECT_GT(refilled["dropped"]["equal_rewards"].get<int64_t>(), 0) << refilled["dropped"].dump();
  EXPECT_FALSE(off["dropped"].contains("equal_rewards"));
  EXPECT_NE(refilled["weights_sha256"], off["weights_sha256"]);
  EXPECT_EQ(refilled["weights_sha256"],
            summary("again", {"--set", "rollout.max_batch=7"})["weights_sha256"]);
}

// A run that does not train ends below the bar that it was asked to reach, and says so by its exit
// code. One that tries the recipe for a step was not asked for the bar of all of them.
TEST(GrpoFamilyBarTest, ARunBelowItsBarExitsWith7AndOneThatWasCutShortDoesNot) {
  const plumb::testing::TempFolder temp;
  const std::vector<std::string> line = {
      "train", PLUMB_SOURCE_DIR "/configs/toy_grpo.toml", "--out", temp / "run", "--steps", "1"};
  std::vector<std::string> asked = line;
  asked[3] = temp / "asked";
  asked.insert(asked.end(), {"--set", "eval.bar=0.95"});
  const auto below = testing::RunPlumb(asked);
  EXPECT_EQ(below.code, 7);
  EXPECT_TRUE(testing::Has(below.err, "eval.bar")) << below.err;
  const auto cut = testing::RunPlumb(line);
  EXPECT_EQ(cut.code, 0) << cut.err;
  EXPECT_TRUE(testing::Has(cut.out, "this run was cut short at 1")) << cut.out;
  EXPECT_TRUE(testing::Has(cut.out, "--resume --out " + (temp / "run") + " --steps ")) << cut.out;
  const auto again = testing::RunPlumb({"train", "--resume", temp / "run"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(testing::Has(again.out, "this run is finished")) << again.out;
}

}  // namespace
}  // namespace plumb::run
