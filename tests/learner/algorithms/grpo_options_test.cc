// learner/algorithms/grpo.h under every objective, advantage and mask of a recipe: what trains,
// what does not, and what is kept for a resume.
#include <gtest/gtest.h>

#include <cmath>

#include "learner/algorithms/grpo.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;
using Metrics = std::map<std::string, double>;

struct OptionsRig {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  configs::Config config;
  std::vector<TrajectoryGroup> groups;
  OptionsRig() {
    weights.Initialise(3, 0.2);
    groups = RandomGroups(3, 4, 9, train, weights, 0);
    config.rollout.max_new_tokens = 12;
    config.optimizer.grad_clip = 0;
  }
  // The gradient that an update sees: its first moment is (1 - beta1) times it.
  std::vector<float> Gradient(Metrics* metrics = nullptr) {
    Optimizer optimizer(weights, config.optimizer);
    ReferencePolicy reference(weights, train);
    Grpo grpo(config, train, weights, optimizer, &reference);
    Metrics got = grpo.Train(groups, 0.0, 0);
    EXPECT_EQ(got.at("optim/skipped"), 0);
    EXPECT_TRUE(std::isfinite(got.at("policy/loss")));
    if (metrics) *metrics = got;
    return {optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements()};
  }
};

double Apart(const std::vector<float>& a, const std::vector<float>& b) {
  double scale = 0, error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
    error = std::max(error, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return scale > 0 ? error / scale : error;
}

TEST(GrpoOptionsTest, AtARatioOfOneMostObjectivesAreThePolicyGradient) {
  OptionsRig rig;
  const auto clip = rig.Gradient();
  for (size_t o = 0; o < configs::kNames<Objective>.size(); ++o) {
    const auto objective = static_cast<Objective>(o);
    rig.config.algorithm.objective = objective;
    // Of a token's own weight; of a whole answer, by the mean over answers.
    rig.config.algorithm.aggregation =
        objective == Objective::kGeometric ? Aggregation::kSequence : Aggregation::kToken;
    const double apart = Apart(clip, rig.Gradient());
    const std::string name = NameOf(objective);
    if (objective == Objective::kClipCov || objective == Objective::kKlCov ||
        objective == Objective::kGeometric)
      EXPECT_LT(apart, 3)
          << name;  // it leaves tokens out; |d| has an edge at 0; it weighs answers alike
    else EXPECT_LT(apart, 1e-4) << name;
  }
}

TEST(GrpoOptionsTest, CovariancesLeaveTokensOut) {
  OptionsRig rig;
  const auto all = rig.Gradient();
  rig.config.algorithm.objective = Objective::kClipCov;
  rig.config.algorithm.cov_low = -100;
  rig.config.algorithm.cov_high = 100;
  rig.config.algorithm.cov_share = 0.5;
  Metrics metrics;
  const auto half = rig.Gradient(&metrics);
  EXPECT_NEAR(metrics.at("policy/clip_fraction"), 0.5, 0.02);
  EXPECT_GT(Apart(all, half), 0.05);
  EXPECT_EQ(half, rig.Gradient()) << "the same draw again";
}

TEST(GrpoOptionsTest, CutAnswersDoNotTrain) {
  OptionsRig rig;
  rig.groups[0].trajectories[1].finish = FinishReason::kLength;
  rig.groups[2].trajectories[3].finish = FinishReason::kLength;
  const auto with = rig.Gradient();
  rig.config.algorithm.mask_truncated = true;
  Metrics metrics;
  const auto without = rig.Gradient(&metrics);
  EXPECT_EQ(metrics.at("policy/truncated_masked"), 2);
  EXPECT_GT(Apart(with, without), 0.01);
  // Their rewards still count for the others' advantages: not as if they were not there.
  rig.groups[0].trajectories[1].scored = rig.groups[2].trajectories[3].scored = false;
  EXPECT_GT(Apart(without, rig.Gradient()), 0.01);
}

TEST(GrpoOptionsTest, AShareOfTheTokensTrains) {
  OptionsRig rig;
  const auto all = rig.Gradient();
  rig.config.algorithm.entropy_quantile = 0.25;
  Metrics metrics;
  const auto few = rig.Gradient(&metrics);
  EXPECT_NEAR(metrics.at("policy/masked"), 0.75, 0.03);
  EXPECT_GT(Apart(all, few), 0.05);
}

TEST(GrpoOptionsTest, AnswersThatThePolicyLeftAreMasked) {
  OptionsRig rig;
  rig.config.algorithm.logprob_gate = 0;
  rig.config.algorithm.off_policy_sequence_mask = 0.5;
  Metrics metrics;
  const auto fresh = rig.Gradient(&metrics);
  EXPECT_EQ(metrics.at("policy/masked"), 0);
  int64_t tokens = 0, left = 0;
  for (TrajectoryGroup& group : rig.groups) {
    double mean = 0;
    for (const Trajectory& t : group.trajectories) mean += t.reward / 4;
    for (Trajectory& t : group.trajectories) {
      for (size_t k = 0; k < t.tokens.size(); ++k) {
        if (!t.loss_mask[k]) continue;
        t.logprobs[k] = std::min(0.0f, t.logprobs[k] + 1);
        ++tokens;
        left += t.reward < mean;
      }
    }
  }
  rig.Gradient(&metrics);
  EXPECT_NEAR(metrics.at("policy/masked"), static_cast<double>(left) / static_cast<double>(tokens),
              1e-9);
}

TEST(GrpoOptionsTest, TheGreedyAnswerIsNotTrained) {
  OptionsRig rig;
  rig.config.algorithm.advantage = Advantage::kGreedy;
  const auto gradient = rig.Gradient();
  for (TrajectoryGroup& group : rig.groups)
    group.trajectories.back().logprobs.assign(group.trajectories.back().logprobs.size(),
                                              -5.0f);  // nobody looks at them
  EXPECT_EQ(gradient, rig.Gradient());
  for (TrajectoryGroup& group : rig.groups) group.trajectories.back().reward += 1;
  EXPECT_GT(Apart(gradient, rig.Gradient()), 0.05) << "but its reward is the baseline";
}

TEST(GrpoOptionsTest, EveryAdvantageTrains) {
  OptionsRig rig;
  const auto plain = rig.Gradient();
  for (size_t a = 0; a < configs::kNames<Advantage>.size(); ++a) {
    rig.config.algorithm.advantage = static_cast<Advantage>(a);
    const auto gradient = rig.Gradient();
    if (static_cast<Advantage>(a) != Advantage::kGroup) {
      EXPECT_GT(Apart(plain, gradient), 1e-3) << configs::kNames<Advantage>[a];
    }
  }
  rig.config.algorithm.advantage = Advantage::kGroup;
  rig.config.algorithm.std_over = configs::StdOver::kBatch;
  EXPECT_GT(Apart(plain, rig.Gradient()), 1e-3);
  rig.config.algorithm.std_over = configs::StdOver::kGroup;
  rig.config.algorithm.reward_aggregation = configs::RewardAggregation::kNormalizeThenSum;
  EXPECT_GT(Apart(plain, rig.Gradient()), 1e-3);
}

TEST(GrpoOptionsTest, TheEntropyCoefficientMovesAndIsKept) {
  OptionsRig rig;
  rig.config.algorithm.entropy_target = 100;  // never met: it rises
  rig.config.algorithm.entropy_coef = 0.1;
  Optimizer optimizer(rig.weights, rig.config.optimizer);
  Grpo grpo(rig.config, rig.train, rig.weights, optimizer, nullptr);
  EXPECT_NEAR(grpo.Train(rig.groups, 0, 0).at("policy/entropy_coef"), 0.105, 1e-12);
  const std::string state = grpo.StateJson();
  EXPECT_NEAR(grpo.Train(rig.groups, 0, 0).at("policy/entropy_coef"), 0.11, 1e-12);
  Grpo again(rig.config, rig.train, rig.weights, optimizer, nullptr);
  again.RestoreState(state);
  EXPECT_EQ(again.StateJson(), state);
  EXPECT_NEAR(again.Train(rig.groups, 0, 0).at("policy/entropy_coef"), 0.11, 1e-12);
}

TEST(GrpoOptionsTest, TheKlTimesTheRatioHasAnotherGradient) {
  OptionsRig rig;
  Weights other(TinyShape(), Device::kCpu, DType::kFloat32);
  other.Initialise(3, 0.2);
  RandomStream random(5, 5);  // near: the estimator's clamp is not met
  for (int64_t i = 0; i < other.flat().elements(); ++i)
    other.flat().f32()[i] += 0.002f * random.NextNormal();
  ReferencePolicy reference(other, rig.train);
  const auto gradient = [&](bool corrected, bool straight) {
    rig.config.algorithm.kl_coef = 0.3;
    rig.config.algorithm.kl_bias_correction = corrected;
    rig.config.algorithm.kl_straight_through = straight;
    Optimizer optimizer(rig.weights, rig.config.optimizer);
    Grpo grpo(rig.config, rig.train, rig.weights, optimizer, &reference);
    grpo.Train(rig.groups, 0.0, 0);
    return std::vector<float>(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
  };
  // At a ratio of 1, k3's gradient plus its value is k2's: both give the KL's own.
  EXPECT_LT(Apart(gradient(true, false), gradient(false, true)), 1e-4);
  EXPECT_GT(Apart(gradient(true, false), gradient(false, false)), 1e-3);
}

}  // namespace
}  // namespace plumb::learner
