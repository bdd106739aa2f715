// learner/offline/reward_model_loss.h against TRL's RewardTrainer in float64
// (tests/golden/reward_model.py), and where it must stay finite.
#include "learner/offline/reward_model_loss.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

// Relative 1e-9. Where the two terms of a derivative cancel, the comparison is relative to the
// larger of them.
void ExpectClose(double actual, double expected, double magnitude, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::max(std::abs(expected), magnitude)) << what;
}

TEST(RewardModelLoss, MatchesTrlValuesAndGradients) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/reward_model.json");
  ASSERT_TRUE(file.good()) << "tests/golden/reward_model.json is missing";
  const Json golden = Json::parse(file);
  int with_margin = 0, with_centering = 0;
  for (const Json& c : golden.at("cases")) {
    const size_t n = c.at("chosen").size();
    const double centering = c.at("centering");
    double loss = 0;
    for (size_t i = 0; i < n; ++i) {
      ScoredPair<double> pair{.chosen = c["chosen"][i], .rejected = c["rejected"][i]};
      if (!c["margins"].is_null()) pair.margin = c["margins"][i];
      const auto out = RewardModelLoss(pair, centering);
      loss += out.value / n;
      const double pull = std::abs(2 * centering * (pair.chosen + pair.rejected)) / n;
      ExpectClose(out.d_chosen / n, c["d_chosen"][i], pull, c.dump());
      ExpectClose(out.d_rejected / n, c["d_rejected"][i], pull, c.dump());
    }
    ExpectClose(loss, c["loss"], 0, c.dump());
    with_margin += !c["margins"].is_null();
    with_centering += centering > 0;
  }
  EXPECT_EQ(golden.at("cases").size(), 49u);
  EXPECT_EQ(with_margin, 24);
  EXPECT_EQ(with_centering, 32);
}

TEST(RewardModelLoss, StaysFiniteWhereSigmoidUnderflows) {
  const auto lost = RewardModelLoss(ScoredPair<float>{.chosen = -2000, .rejected = 2000});
  EXPECT_FLOAT_EQ(lost.value, 4000);
  EXPECT_FLOAT_EQ(lost.d_chosen, -1);
  EXPECT_FLOAT_EQ(lost.d_rejected, 1);
  const auto won = RewardModelLoss(ScoredPair<float>{.chosen = 2000, .rejected = -2000});
  EXPECT_EQ(won.value, 0);
  EXPECT_EQ(won.d_chosen, 0);
  EXPECT_EQ(won.d_rejected, 0);
}

TEST(RewardModelLoss, MarginShiftsAndCenteringSeesOnlyTheSum) {
  const auto shifted =
      RewardModelLoss(ScoredPair<double>{.chosen = 2, .rejected = 0.5, .margin = 1});
  const auto plain = RewardModelLoss(ScoredPair<double>{.chosen = 1, .rejected = 0.5});
  EXPECT_DOUBLE_EQ(shifted.value, plain.value);
  EXPECT_DOUBLE_EQ(shifted.d_chosen, plain.d_chosen);
  const auto centred = RewardModelLoss(ScoredPair<double>{.chosen = 3, .rejected = -3}, 0.7);
  const auto loose = RewardModelLoss(ScoredPair<double>{.chosen = 3, .rejected = -3});
  EXPECT_DOUBLE_EQ(centred.value, loose.value);
  EXPECT_DOUBLE_EQ(centred.d_rejected, loose.d_rejected);
}

}  // namespace
}  // namespace plumb::learner
