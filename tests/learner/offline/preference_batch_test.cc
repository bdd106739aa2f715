// learner/offline/preference_batch.h, and the losses of one pair that it adds up, against TRL's own
// code in float64 (tests/golden/preference_loss.py): loss and the gradient of every token.
#include "learner/offline/preference_batch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Kind = PreferenceLossKind;

Json Golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/preference_loss.json");
  return Json::parse(file);
}

void ExpectClose(double actual, double expected, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::max(1.0, std::abs(expected))) << what;
}

double Weighted(const std::vector<double>& tokens, size_t other, double alpha) {
  double sum = 0;
  for (size_t k = 0; k < tokens.size(); ++k)
    sum += tokens[k] * LengthWeight(alpha, k, std::min(tokens.size(), other));
  return sum;
}

TEST(PreferenceBatchTest, EqualsTrlLossAndGradient) {
  const Json golden = Golden();
  std::set<std::string> seen;
  int weighted = 0;  // pairs of WPO
  for (const Json& c : golden.at("batches")) {
    const std::string name = c["name"];
    const double alpha = c["ld_alpha"].is_null() ? 1.0 : c["ld_alpha"].get<double>();
    std::vector<WeightedLoss> losses;
    for (size_t i = 0; i < c["losses"].size(); ++i) {
      const auto kind = configs::FromName<Kind>(c["losses"][i].get<std::string>());
      ASSERT_TRUE(kind.has_value()) << name;
      losses.emplace_back(*kind, c["weights"][i].get<double>());
      seen.insert(NameOf(*kind));
    }
    // TRL has cDPO in another trainer: its DPO's sigmoid does not smooth.
    const bool smooths = losses[0].first != Kind::kSigmoid &&
                         losses[0].first != Kind::kSigmoidNorm &&
                         losses[0].first != Kind::kDiscopop;
    const PreferenceLossOptions options{
        .beta = c["beta"],
        .label_smoothing = smooths ? c["label_smoothing"].get<double>() : 0,
        .divergence = *configs::FromName<Divergence>(c["f_divergence_type"].get<std::string>()),
        .divergence_alpha = c["f_alpha_divergence_coef"],
        .discopop_tau = c["discopop_tau"]};
    const size_t n = c["policy"].size();
    size_t chosen_tokens = 0;
    for (const Json& pair : c["policy"]) chosen_tokens += pair[0].size();
    std::vector<PairLogprobs<double>> pairs;
    for (size_t i = 0; i < n; ++i) {
      const Json &policy = c["policy"][i], &reference = c["reference"][i];
      const size_t chosen = policy[0].size(), rejected = policy[1].size();
      pairs.push_back({.chosen = Weighted(policy[0], rejected, alpha),
                       .rejected = Weighted(policy[1], chosen, alpha),
                       .ref_chosen = Weighted(reference[0], rejected, alpha),
                       .ref_rejected = Weighted(reference[1], chosen, alpha),
                       .chosen_tokens = static_cast<double>(chosen),
                       .rejected_tokens = static_cast<double>(rejected),
                       .sft_share = static_cast<double>(n) / static_cast<double>(chosen_tokens)});
      if (c["squares"].is_null()) continue;
      ++weighted;
      for (const size_t side : {0, 1}) {
        const std::vector<double> logprobs = policy[side], squares = c["squares"][i][side];
        pairs.back().weight *= WrittenWeight<double>(logprobs, squares);
      }
    }
    // Only an IPO or a normalised score divides by the tokens TRL counts.
    const auto got = PreferenceLosses<double>(pairs, losses, options);
    double loss = 0;
    for (size_t i = 0; i < n; ++i) {
      loss += got[i].value / static_cast<double>(n);
      for (const size_t side : {0, 1}) {
        const Json& gradient = c["gradient"][i][side];
        const double slope = side == 0 ? got[i].d_chosen : got[i].d_rejected;
        const size_t shorter = std::min(gradient.size(), c["gradient"][i][1 - side].size());
        for (size_t k = 0; k < gradient.size(); ++k)
          ExpectClose(slope * LengthWeight(alpha, k, shorter) / static_cast<double>(n), gradient[k],
                      name);
      }
    }
    ExpectClose(loss, c["value"], name);
  }
  EXPECT_GE(seen.size(), 15u);
  EXPECT_GE(weighted, 40);
}

TEST(PreferenceBatchTest, DerivativesAreFiniteDifferences) {
  std::vector<PairLogprobs<double>> pairs;
  for (int i = 0; i < 4; ++i) {
    const double x = i;
    pairs.push_back({.chosen = -9 - x,
                     .rejected = -14 + 2 * std::sin(x),
                     .ref_chosen = -10 + std::cos(3 * x),
                     .ref_rejected = -12 - std::sin(2 * x),
                     .chosen_tokens = 5,
                     .rejected_tokens = 8,
                     .sft_share = 0.2});
  }
  const double h = 1e-6;
  for (size_t kind = 0; kind < configs::kNames<Kind>.size(); ++kind) {
    if (static_cast<Kind>(kind) == Kind::kKto) continue;
    for (size_t d = 0; d < configs::kNames<Divergence>.size(); ++d) {
      const std::vector<WeightedLoss> losses = {{static_cast<Kind>(kind), 1.7}};
      const PreferenceLossOptions options{.beta = 0.6,
                                          .label_smoothing = 0.1,
                                          .divergence = static_cast<Divergence>(d),
                                          .divergence_alpha = 0.5,
                                          .discopop_tau = 0.4};
      const auto value = [&] {
        double sum = 0;
        for (const auto& l : PreferenceLosses<double>(pairs, losses, options)) sum += l.value;
        return sum;
      };
      const auto slope = [&](double& x) {
        const double here = x;
        x = here + h;
        const double up = value();
        x = here - h;
        const double down = value();
        x = here;
        return (up - down) / (2 * h);
      };
      const auto got = PreferenceLosses<double>(pairs, losses, options);
      for (size_t i = 0; i < pairs.size(); ++i) {
        const std::string what(configs::kNames<Kind>[kind]);
        EXPECT_NEAR(got[i].d_chosen, slope(pairs[i].chosen), 1e-7) << what;
        EXPECT_NEAR(got[i].d_rejected, slope(pairs[i].rejected), 1e-7) << what;
        EXPECT_NEAR(got[i].d_ref_chosen, slope(pairs[i].ref_chosen), 1e-7) << what;
        EXPECT_NEAR(got[i].d_ref_rejected, slope(pairs[i].ref_rejected), 1e-7) << what;
      }
    }
  }
}

TEST(PreferenceBatchTest, FarPairsStayFinite) {
  for (size_t kind = 0; kind < configs::kNames<Kind>.size(); ++kind) {
    if (static_cast<Kind>(kind) == Kind::kKto || static_cast<Kind>(kind) == Kind::kOrpo) continue;
    for (const double far : {-2000.0, 2000.0}) {
      for (size_t d = 0; d < configs::kNames<Divergence>.size(); ++d) {
        const PairLogprobs<double> p{
            .chosen = -2500 + far, .rejected = -2500, .ref_chosen = -2500, .ref_rejected = -2500};
        const auto out = PreferenceLosses<double>(
            std::span(&p, 1), std::vector<WeightedLoss>{{static_cast<Kind>(kind), 1.0}},
            {.beta = 1,
             .label_smoothing = 0.1,
             .divergence = static_cast<Divergence>(d),
             .divergence_alpha = 1.5});
        EXPECT_TRUE(std::isfinite(out[0].value)) << configs::kNames<Kind>[kind] << " " << d;
        EXPECT_TRUE(std::isfinite(out[0].d_chosen)) << configs::kNames<Kind>[kind] << " " << d;
      }
    }
  }
}

TEST(PreferenceBatchTest, ReadsALossOrAListOfThem) {
  configs::PreferenceConfig c;
  EXPECT_EQ(LossesOf(c), (std::vector<WeightedLoss>{{Kind::kSigmoid, 1}}));
  c.losses = {"sigmoid=0.8", "sft=1"};
  EXPECT_EQ(LossesOf(c), (std::vector<WeightedLoss>{{Kind::kSigmoid, 0.8}, {Kind::kSft, 1}}));
  EXPECT_TRUE(UsesReference(LossesOf(c)));
  c.losses = {"sft=1", "simpo=0.5"};
  EXPECT_FALSE(UsesReference(LossesOf(c)));
  EXPECT_FALSE(ComparesBatch(LossesOf(c)));
  c.losses = {"sft=1", "aot=0.5"};
  EXPECT_TRUE(ComparesBatch(LossesOf(c)));
}

}  // namespace
}  // namespace plumb::learner
