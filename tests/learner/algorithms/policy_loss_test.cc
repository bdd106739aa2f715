// learner/algorithms/policy_loss.h against numbers of an independent PyTorch script
// (tests/golden/make_policy_loss_golden.py) in double, and its derivatives against finite
// differences.
#include "learner/algorithms/policy_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

Json Golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/policy_loss.json");
  EXPECT_TRUE(file.good()) << "tests/golden/policy_loss.json is missing";
  return Json::parse(file);
}

// Both sides evaluate the same few exp and multiply in double: 1e-9 relative leaves six digits of
// room.
void ExpectClose(double actual, double expected, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::max(1.0, std::abs(expected))) << what;
}

TEST(PolicyLossTest, MatchesIndependentNumbers) {
  const Json golden = Golden();
  int cases = 0;
  for (const Json& c : golden.at("surrogate")) {
    const ClipOptions clip{.low = c.at("low"), .high = c.at("high"), .dual = c.at("dual")};
    const auto out =
        ClippedSurrogate<double>(c.at("logprob"), c.at("old"), c.at("advantage"), clip);
    ExpectClose(out.value, c.at("value"), c.dump());
    ExpectClose(out.derivative, c.at("derivative"), c.dump());
    ++cases;
  }
  EXPECT_GE(cases, 200);
}

TEST(PolicyLossTest, KlEstimatorsMatchIndependentNumbers) {
  const Json golden = Golden();
  int cases = 0;
  for (const Json& c : golden.at("kl")) {
    const std::string name = c.at("estimator");
    const KlEstimator e = name == "k1"   ? KlEstimator::kK1
                          : name == "k2" ? KlEstimator::kK2
                                         : KlEstimator::kK3;
    const auto out = KlEstimate<double>(e, c.at("logprob"), c.at("reference"));
    ExpectClose(out.value, c.at("value"), c.dump());
    ExpectClose(out.derivative, c.at("derivative"), c.dump());
    ++cases;
  }
  EXPECT_GE(cases, 100);
}

TEST(PolicyLossTest, DerivativesMatchFiniteDifferences) {
  const double h = 1e-6;
  for (double lp : {-3.0, -1.1, -0.5, -0.01}) {
    for (double old : {-2.0, -1.0, -0.3}) {
      for (double advantage : {-1.5, -0.2, 0.7, 2.0}) {
        const ClipOptions clip{.low = 0.2, .high = 0.28, .dual = 3};
        const auto at = ClippedSurrogate<double>(lp, old, advantage, clip);
        const double slope = (ClippedSurrogate<double>(lp + h, old, advantage, clip).value -
                              ClippedSurrogate<double>(lp - h, old, advantage, clip).value) /
                             (2 * h);
        // Central differences: error h^2 f''' / 6 plus rounding eps / h.
        EXPECT_NEAR(at.derivative, slope, 1e-7 * std::max(1.0, std::abs(slope)));
        for (KlEstimator e : {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
          const double kl_slope = (KlEstimate<double>(e, lp + h, old).value -
                                   KlEstimate<double>(e, lp - h, old).value) /
                                  (2 * h);
          EXPECT_NEAR(KlEstimate<double>(e, lp, old).derivative, kl_slope,
                      1e-7 * std::max(1.0, std::abs(kl_slope)));
        }
      }
    }
  }
}

TEST(PolicyLossTest, ClampsKeepExtremeInputsFinite) {
  for (double d : {-1e6, -100.0, 100.0, 1e6}) {
    EXPECT_TRUE(std::isfinite(ClippedSurrogate<double>(d, 0, -1, {}).value));
    const auto kl = KlEstimate<double>(KlEstimator::kK3, d, 0);
    EXPECT_TRUE(std::isfinite(kl.value));
    EXPECT_LE(kl.value, 10);
    EXPECT_EQ(kl.derivative, 0);
  }
}

}  // namespace
}  // namespace plumb::learner
