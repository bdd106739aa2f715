// What bias and loss do to the load of experts in a whole run (configs/toy_moe.toml): each by
// itself evens it out, and without them it stays uneven.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

// (largest - mean) / mean of the experts' tokens, in the layer where that is largest: mean of the
// last ten steps, for one step alone has a tenth of noise.
double SpreadAtTheEnd(const std::string& aux_coef, const std::string& bias_rate) {
  const plumb::testing::TempFolder temp;
  const auto trained = testing::RunPlumb(
      {"train", plumb::testing::SourcePath("configs/toy_moe.toml"), "--out", temp / "run",
       "--quiet", "--set", "run.threads=1", "--set", "experts.aux_coef=" + aux_coef, "--set",
       "experts.bias_rate=" + bias_rate});
  EXPECT_EQ(trained.code, 0) << trained.err;
  const auto steps = testing::Lines(temp / "run/metrics.jsonl");
  double sum = 0;
  for (size_t i = steps.size() - 10; i < steps.size(); ++i)
    sum += steps[i]["moe/expert_load_max_over_mean"].get<double>() - 1;
  return sum / 10;
}

TEST(ExpertLoad, TheLossAloneEvensItOut) { EXPECT_LT(SpreadAtTheEnd("0.3", "0"), 0.15); }

TEST(ExpertLoad, TheBiasAloneEvensItOut) { EXPECT_LT(SpreadAtTheEnd("0", "0.001"), 0.12); }

TEST(ExpertLoad, WithoutThemItStaysUneven) { EXPECT_GT(SpreadAtTheEnd("0", "0"), 0.4); }

}  // namespace
}  // namespace plumb::run
