// learner/algorithms/teaching/taught_token.h through the algorithms: a teacher's term against the
// KL terms that have the same gradient.
#include "learner/algorithms/teaching/taught_token.h"

#include <gtest/gtest.h>

#include <cmath>

#include "learner/algorithms/grpo.h"
#include "learner/algorithms/ppo.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;
using Metrics = std::map<std::string, double>;

struct Rig {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  configs::Config config;
  std::vector<TrajectoryGroup> groups;
  explicit Rig(uint64_t seed = 9) {
    weights.Initialise(3, 0.2);
    groups = RandomGroups(3, 4, seed, train, weights, 0);
    config.rollout.max_new_tokens = 12;
    config.optimizer.grad_clip = 0;
  }
  // The first moment of an update is (1 - beta1) times its gradient.
  std::vector<float> Gradient(bool teach, Metrics* metrics = nullptr) {
    Optimizer optimizer(weights, config.optimizer);
    ReferencePolicy reference(weights, train);
    reference.weights().Initialise(5, 0.3);  // not the policy
    config.distill.teachers = {"self"};
    Distiller distiller(config, weights, nullptr, &reference);
    std::unique_ptr<Algorithm> algorithm;
    if (config.algorithm.name == configs::AlgorithmName::kPpo) {
      algorithm =
          std::make_unique<Ppo>(AlgorithmContext{.config = config,
                                                 .train = train,
                                                 .weights = weights,
                                                 .optimizer = optimizer,
                                                 .reference = &reference,
                                                 .distiller = teach ? &distiller : nullptr});
    } else {
      algorithm = std::make_unique<Grpo>(config, train, weights, optimizer, &reference,
                                         teach ? &distiller : nullptr);
    }
    Metrics got = algorithm->Train(groups, 0.0, 0);
    EXPECT_EQ(got.at("optim/skipped"), 0);
    if (metrics) *metrics = got;
    return {optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements()};
  }
  void NoRewards() {
    for (TrajectoryGroup& group : groups) {
      for (Trajectory& t : group.trajectories) t.reward = 0.5;
    }
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

// On fresh answers -A log p with A = log p_T - log p_S has the gradient of (log p_S - log p_T)^2 /
// 2.
TEST(TaughtTokenTest, ReverseK1IsThePolicyGradientOfTheReverseKl) {
  Rig rig;
  rig.NoRewards();
  rig.config.algorithm.kl_coef = 0.7;
  rig.config.algorithm.kl_placement = KlPlacement::kLoss;
  rig.config.algorithm.kl_estimator = KlEstimator::kK2;
  const auto kl = rig.Gradient(false);
  rig.config.algorithm.kl_coef = 0;
  rig.config.distill.coef = 0.7;
  rig.config.distill.distance = configs::Distance::kReverseK1;
  Metrics metrics;
  EXPECT_LT(Apart(kl, rig.Gradient(true, &metrics)), 2e-3);
  EXPECT_TRUE(std::isfinite(metrics.at("distill/kl")));
  EXPECT_LT(metrics.at("distill/teacher_logprob"), 0);
  EXPECT_GE(metrics.at("distill/agreement"), 0);
  EXPECT_LE(metrics.at("distill/agreement"), 1);
}

TEST(TaughtTokenTest, ReverseK3IsTheKlTermOfThatEstimator) {
  Rig rig;
  rig.NoRewards();
  rig.config.algorithm.kl_coef = 0.7;
  rig.config.algorithm.kl_placement = KlPlacement::kLoss;
  rig.config.algorithm.kl_estimator = KlEstimator::kK3;
  Metrics of_kl, of_teacher;
  const auto kl = rig.Gradient(false, &of_kl);
  rig.config.algorithm.kl_coef = 0;
  rig.config.distill.coef = 0.7;
  rig.config.distill.distance = configs::Distance::kReverseK3;
  EXPECT_LT(Apart(kl, rig.Gradient(true, &of_teacher)), 2e-3);
  EXPECT_NEAR(of_teacher.at("distill/kl"), of_kl.at("objective/kl"), 1e-4);
  EXPECT_NEAR(of_teacher.at("policy/loss"), of_kl.at("policy/loss"), 1e-4);
}

TEST(TaughtTokenTest, OnlyTheTeacherMeansNoReward) {
  for (const auto distance : {configs::Distance::kReverseK1, configs::Distance::kReverseK3,
                              configs::Distance::kForwardTopK, configs::Distance::kJsd}) {
    for (const auto name : {configs::AlgorithmName::kGrpo, configs::AlgorithmName::kPpo}) {
      Rig rig;
      rig.config.algorithm.name = name;
      rig.config.algorithm.whiten_advantages = false;
      rig.config.distill.distance = distance;
      rig.config.distill.top_k = 6;
      const auto both = rig.Gradient(true);
      rig.config.distill.only = true;
      Metrics metrics;
      const auto alone = rig.Gradient(true, &metrics);
      EXPECT_GT(Apart(both, alone), 1e-3) << NameOf(distance);
      EXPECT_GT(metrics.at("distill/kl") + 20, 0);
      rig.NoRewards();
      EXPECT_LT(Apart(alone, rig.Gradient(true)), 1e-5)
          << NameOf(distance) << ": the rewards teach nothing";
    }
  }
}

TEST(TaughtTokenTest, TheTermIsWeighed) {
  Rig rig;
  rig.NoRewards();
  rig.config.distill.distance = configs::Distance::kJsd;
  const auto once = rig.Gradient(true);
  rig.config.distill.coef = 3;
  auto thrice = rig.Gradient(true);
  for (float& g : thrice) g /= 3;
  EXPECT_LT(Apart(once, thrice), 1e-4);
  rig.config.distill.coef = 0;
  const auto none = rig.Gradient(true);
  for (const float g : none) ASSERT_EQ(g, 0);
}

TEST(TaughtTokenTest, AnUnsureTeacherSaysNothing) {
  Rig rig;
  rig.NoRewards();
  rig.config.distill.distance = configs::Distance::kReverseK1;
  const auto all = rig.Gradient(true);
  rig.config.distill.confidence = 1;
  rig.config.distill.unsure_share = 0;
  Metrics metrics;
  const auto one = rig.Gradient(true, &metrics);
  EXPECT_GT(Apart(all, one), 0.05);
  EXPECT_NEAR(metrics.at("distill/left_out"), 11.0 / 12, 1e-9) << "the surest answer stays";
}

}  // namespace
}  // namespace plumb::learner
