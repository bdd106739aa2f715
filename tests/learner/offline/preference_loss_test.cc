// learner/offline/preference_loss.h against TRL's own code in float64
// (tests/golden/preference_loss.py), and against identities and finite differences where TRL has no
// such loss.
#include "learner/offline/preference_loss.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

Json Golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/preference_loss.json");
  EXPECT_TRUE(file.good()) << "tests/golden/preference_loss.json is missing";
  return Json::parse(file);
}

// Relative 1e-9; the tiny absolute part only lets exact zeros equal zeros.
void ExpectClose(double actual, double expected, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::abs(expected) + 1e-21) << what;
}

PreferenceLossKind KindOf(const std::string& name) {
  if (name == "hinge") return PreferenceLossKind::kHinge;
  if (name == "ipo") return PreferenceLossKind::kIpo;
  if (name == "robust") return PreferenceLossKind::kRobust;
  if (name == "simpo") return PreferenceLossKind::kSimpo;
  if (name == "orpo") return PreferenceLossKind::kOrpo;
  EXPECT_EQ(name, "sigmoid");
  return PreferenceLossKind::kSigmoid;
}

TEST(PreferenceLoss, MatchesTrlValuesAndGradients) {
  const Json golden = Golden();
  std::map<std::string, int> cases;
  for (const Json& c : golden.at("pairs")) {
    const PairLogprobs<double> p{.chosen = c.at("chosen"),
                                 .rejected = c.at("rejected"),
                                 .ref_chosen = c.at("ref_chosen"),
                                 .ref_rejected = c.at("ref_rejected"),
                                 .chosen_tokens = c.at("chosen_tokens"),
                                 .rejected_tokens = c.at("rejected_tokens")};
    const auto out = PreferenceLoss(p, {.kind = KindOf(c.at("kind")),
                                        .beta = c.at("beta"),
                                        .label_smoothing = c.at("smoothing"),
                                        .length_normalize = c.at("normalize")});
    const std::string what = c.dump();
    ExpectClose(out.value, c.at("value"), what);
    ExpectClose(out.d_chosen, c.at("gradient")[0], what);
    ExpectClose(out.d_rejected, c.at("gradient")[1], what);
    ExpectClose(out.d_ref_chosen, c.at("gradient")[2], what);
    ExpectClose(out.d_ref_rejected, c.at("gradient")[3], what);
    ++cases[c.at("name")];
  }
  EXPECT_EQ(cases.size(), 8u);
  for (const auto& [name, n] : cases) EXPECT_GE(n, 20) << name;
}

TEST(PreferenceLoss, KtoMatchesTrl) {
  const Json golden = Golden();
  int at_zero = 0;
  for (const Json& c : golden.at("kto")) {
    const double kl = KtoBaseline<double>(c.at("mean_log_ratio"));
    at_zero += kl == 0;
    const auto out = KtoCompletionLoss<double>(c.at("logprob"), c.at("reference"), kl,
                                               c.at("desirable"), c.at("beta"), c.at("weight"));
    ExpectClose(out.value, c.at("value"), c.dump());
    ExpectClose(out.derivative, c.at("derivative"), c.dump());
  }
  EXPECT_GT(at_zero, 0) << "no case where the baseline is cut at 0";
  EXPECT_GE(golden.at("kto").size(), 20u);
}

TEST(PreferenceLoss, EqualModelsStartAtLogTwo) {
  const PairLogprobs<double> p{
      .chosen = -30, .rejected = -50, .ref_chosen = -30, .ref_rejected = -50};
  EXPECT_DOUBLE_EQ(PreferenceLoss(p, {}).value, std::log(2.0));
  EXPECT_DOUBLE_EQ(PreferenceLoss(p, {.label_smoothing = 0.3}).value, std::log(2.0));
}

TEST(PreferenceLoss, AMarginAsksForThatMuchMore) {
  PairLogprobs<double> p{
      .chosen = -3, .rejected = -4, .ref_chosen = -3.5, .ref_rejected = -3.75, .margin = 0.4};
  for (const auto kind :
       {PreferenceLossKind::kSigmoid, PreferenceLossKind::kHinge, PreferenceLossKind::kRobust}) {
    const PreferenceLossOptions options{.kind = kind, .beta = 0.5, .label_smoothing = 0.1};
    const auto with = PreferenceLoss(p, options);
    PairLogprobs<double> shifted = p;
    shifted.margin = 0;
    shifted.chosen -= p.margin / options.beta;
    const auto same = PreferenceLoss(shifted, options);
    EXPECT_NEAR(with.value, same.value, 1e-14);
    EXPECT_NEAR(with.d_chosen, same.d_chosen, 1e-14);
    EXPECT_NEAR(with.reward_chosen - same.reward_chosen, p.margin, 1e-14);
  }
}

TEST(PreferenceLoss, DerivativesAreFiniteDifferences) {
  const PairLogprobs<double> p{.chosen = -9,
                               .rejected = -14,
                               .ref_chosen = -11,
                               .ref_rejected = -12,
                               .chosen_tokens = 5,
                               .rejected_tokens = 8,
                               .margin = 0.3};
  const double h = 1e-6;
  for (const auto kind :
       {PreferenceLossKind::kSigmoid, PreferenceLossKind::kHinge, PreferenceLossKind::kIpo,
        PreferenceLossKind::kRobust, PreferenceLossKind::kSimpo, PreferenceLossKind::kOrpo}) {
    for (const bool normalize : {false, true}) {
      const PreferenceLossOptions options{
          .kind = kind, .beta = 0.7, .label_smoothing = 0.1, .length_normalize = normalize};
      const auto out = PreferenceLoss(p, options);
      const auto slope = [&](double PairLogprobs<double>::*field) {
        PairLogprobs<double> up = p, down = p;
        up.*field += h;
        down.*field -= h;
        return (PreferenceLoss(up, options).value - PreferenceLoss(down, options).value) / (2 * h);
      };
      // The central difference itself is exact to about 1e-16 / h.
      EXPECT_NEAR(out.d_chosen, slope(&PairLogprobs<double>::chosen), 1e-8);
      EXPECT_NEAR(out.d_rejected, slope(&PairLogprobs<double>::rejected), 1e-8);
      EXPECT_NEAR(out.d_ref_chosen, slope(&PairLogprobs<double>::ref_chosen), 1e-8);
      EXPECT_NEAR(out.d_ref_rejected, slope(&PairLogprobs<double>::ref_rejected), 1e-8);
    }
  }
}

TEST(PreferenceLoss, FarPairsStayFinite) {
  for (const float far : {-2000.0f, 2000.0f}) {
    const PairLogprobs<float> p{
        .chosen = -2500 + far, .rejected = -2500, .ref_chosen = -2500, .ref_rejected = -2500};
    const auto out = PreferenceLoss(p, {.beta = 1});
    EXPECT_TRUE(std::isfinite(out.value) && std::isfinite(out.d_chosen));
    EXPECT_FLOAT_EQ(out.value, far < 0 ? 2000.0f : 0.0f);
    EXPECT_FLOAT_EQ(out.d_chosen, far < 0 ? -1.0f : 0.0f);
  }
}

}  // namespace
}  // namespace plumb::learner
