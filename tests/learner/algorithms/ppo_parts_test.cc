// The parts of PPO in double against numbers of an independent script (tests/golden/ppo.py):
// learner/algorithms/gae.h, value_loss.h, kl_controller.h, reward_scaling.h, ppo_targets.h;
// derivatives against finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "learner/algorithms/gae.h"
#include "learner/algorithms/kl_controller.h"
#include "learner/algorithms/policy_loss.h"
#include "learner/algorithms/ppo_targets.h"
#include "learner/algorithms/reward_scaling.h"
#include "learner/algorithms/value_loss.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using Row = std::vector<double>;
using Rows = std::vector<Row>;

const Json& Golden() {
  static const Json golden = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/ppo.json");
    EXPECT_TRUE(file.good()) << "tests/golden/ppo.json is missing";
    return Json::parse(file);
  }();
  return golden;
}

// Sums of at most 40 products in double on both sides: 1e-9 relative leaves five digits of room.
void ExpectClose(double actual, double expected) {
  EXPECT_NEAR(actual, expected, 1e-9 * std::max(1.0, std::abs(expected)));
}
void ExpectClose(const Row& actual, const Row& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) ExpectClose(actual[i], expected[i]);
}

TEST(GaeTest, MatchesItsDefinition) {
  for (const Json& c : Golden().at("gae")) {
    const Row rewards = c.at("rewards"), values = c.at("values");
    Row advantages(rewards.size()), returns(rewards.size());
    Gae<double>(rewards, values, c.at("gamma"), c.at("lam"), advantages, returns);
    ExpectClose(advantages, c.at("advantages").get<Row>());
    ExpectClose(returns, c.at("returns").get<Row>());
  }
  EXPECT_EQ(Golden().at("gae").size(), 24u);
}

TEST(GaeTest, WhiteningAndExplainedVariance) {
  for (const Json& c : Golden().at("whiten")) {
    Rows rows = c.at("rows");
    Whiten<double>(rows);
    const Rows white = c.at("white");
    for (size_t i = 0; i < rows.size(); ++i) ExpectClose(rows[i], white[i]);
  }
  for (const Json& c : Golden().at("explained_variance")) {
    ExpectClose(ExplainedVariance<double>(c.at("returns").get<Rows>(), c.at("values").get<Rows>()),
                c.at("value"));
  }
  // One token, and tokens that are all equal: nothing to learn, nothing divided by 0.
  Rows one = {{4.0}}, same = {{2.0, 2.0}, {2.0}};
  Whiten<double>(one);
  Whiten<double>(same);
  EXPECT_EQ(one[0][0], 0);
  EXPECT_EQ(same[0][1], 0);
  EXPECT_EQ(ExplainedVariance<double>(Rows{{1, 1}}, Rows{{0, 5}}), 0);
}

TEST(ValueLossTest, MatchesIndependentNumbersAndFiniteDifferences) {
  int clipped = 0;
  for (const Json& c : Golden().at("value_loss")) {
    const double v = c.at("value_now"), old = c.at("old"), target = c.at("target"),
                 clip = c.at("clip");
    const auto out = ClippedValueLoss<double>(v, old, target, clip);
    ExpectClose(out.value, c.at("value"));
    ExpectClose(out.derivative, c.at("derivative"));
    clipped += out.clipped;
    const double h = 1e-6;
    const double slope = (ClippedValueLoss<double>(v + h, old, target, clip).value -
                          ClippedValueLoss<double>(v - h, old, target, clip).value) /
                         (2 * h);
    EXPECT_NEAR(out.derivative, slope, 1e-7);  // a parabola: only rounding, eps / h
  }
  EXPECT_EQ(Golden().at("value_loss").size(), 108u);
  EXPECT_GT(clipped, 10);
}

TEST(KlControllerTest, FollowsTheFormulaAndIgnoresWhatIsNotFinite) {
  for (const Json& c : Golden().at("controller")) {
    KlController<double> controller(c.at("start"), c.at("target"), c.at("horizon"));
    for (const Json& h : c.at("history")) {
      EXPECT_TRUE(controller.Update(h.at("kl"), h.at("n")));
      ExpectClose(controller.coefficient(), h.at("coef"));
    }
    const double before = controller.coefficient();
    EXPECT_FALSE(controller.Update(std::numeric_limits<double>::quiet_NaN(), 8));
    EXPECT_FALSE(controller.Update(std::numeric_limits<double>::infinity(), 8));
    EXPECT_EQ(controller.coefficient(), before);
  }
  KlController<double> fixed(0.3, 0, 10000);
  EXPECT_TRUE(fixed.Update(100, 64));
  EXPECT_EQ(fixed.coefficient(), 0.3);
}

TEST(RewardScalingTest, RunningMomentsEqualThoseOfEverythingSeen) {
  for (const Json& c : Golden().at("moments")) {
    RewardScaling<double> scale(RewardNormalization::kScale, c.at("clip")),
        whiten(RewardNormalization::kWhiten, c.at("clip"));
    for (const Json& b : c.at("batches")) {
      const Row scores = b.at("scores"), scaled = b.at("scale"), white = b.at("whiten");
      scale.Observe(scores);
      whiten.Observe(scores);
      ExpectClose(scale.mean(), b.at("mean"));
      ExpectClose(scale.std(), b.at("std"));
      for (size_t i = 0; i < scores.size(); ++i) {
        ExpectClose(scale.Apply(scores[i]), scaled[i]);
        ExpectClose(whiten.Apply(scores[i]), white[i]);
      }
    }
    // The state is all there is.
    RewardScaling<double> again(RewardNormalization::kWhiten, c.at("clip"));
    again.Restore(whiten.state());
    EXPECT_EQ(again.Apply(3.3), whiten.Apply(3.3));
  }
  RewardScaling<double> equal(RewardNormalization::kScale, 0);
  equal.Observe(Row{2, 2, 2});
  EXPECT_EQ(equal.Apply(2), 2);  // no deviation yet: nothing is divided by 0
}

TEST(PpoTargetsTest, AWholeBatchMatchesIndependentLossesAndGradients) {
  for (const Json& c : Golden().at("loss")) {
    const Rows old = c.at("old"), ref = c.at("ref"), old_values = c.at("old_values"),
               now = c.at("new");
    const Rows new_values = c.at("new_values"), entropy = c.at("entropy");
    const Row scores = c.at("scores"), kl = c.at("kl");
    std::vector<PpoAnswer<double>> answers(old.size());
    int64_t tokens = 0;
    for (size_t i = 0; i < old.size(); ++i) {
      answers[i] = {.old_logprob = old[i],
                    .reference = ref[i],
                    .values = old_values[i],
                    .rewards = Row(old[i].size(), 0)};
      answers[i].rewards.back() = scores[i];
      tokens += static_cast<int64_t>(old[i].size());
    }
    PpoTargets<double>(answers, {.gamma = c.at("gamma"),
                                 .lam = c.at("lam"),
                                 .kl_coef = c.at("kl_coef"),
                                 .estimator = KlEstimator::kK1,
                                 .whiten = true});
    const Rows advantages = c.at("advantages"), returns = c.at("returns");
    const Rows g_logprob = c.at("g_logprob"), g_value = c.at("g_value"),
               g_entropy = c.at("g_entropy");
    const ClipOptions clip{
        .low = c.at("clip_low"), .high = c.at("clip_high"), .dual = c.at("dual_clip")};
    double policy = 0, value = 0;
    const double weight = 1.0 / static_cast<double>(tokens), entropy_coef = c.at("entropy_coef");
    for (size_t i = 0; i < answers.size(); ++i) {
      ExpectClose(answers[i].kl, kl[i]);
      ExpectClose(answers[i].advantages, advantages[i]);
      ExpectClose(answers[i].returns, returns[i]);
      for (size_t t = 0; t < now[i].size(); ++t) {
        const auto p =
            ClippedSurrogate<double>(now[i][t], old[i][t], answers[i].advantages[t], clip);
        const auto v = ClippedValueLoss<double>(new_values[i][t], old_values[i][t],
                                                answers[i].returns[t], c.at("value_clip"));
        policy += weight * (p.value - entropy_coef * entropy[i][t]);
        value += weight * v.value;
        ExpectClose(weight * p.derivative, g_logprob[i][t]);
        ExpectClose(weight * v.derivative, g_value[i][t]);
        ExpectClose(-weight * entropy_coef, g_entropy[i][t]);
      }
    }
    ExpectClose(policy, c.at("policy_loss"));
    ExpectClose(value, c.at("value_loss"));
  }
}

}  // namespace
}  // namespace plumb::learner
