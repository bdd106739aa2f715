// A policy with everything that PPO needs around it, on a tiny model.
#pragma once

#include <string>

#include "learner/algorithms/critic.h"
#include "learner/algorithms/ppo.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {

inline configs::Config PpoConfig(const std::string& mode) {
  configs::Config config;
  config.algorithm.name = configs::AlgorithmName::kPpo;
  config.algorithm.kl_estimator = KlEstimator::kK1;
  config.algorithm.kl_placement = configs::KlPlacement::kReward;
  config.critic.mode = configs::FromName<configs::CriticMode>(mode).value();
  config.rollout.max_new_tokens = 12;
  config.optimizer.learning_rate = 1e-3;
  config.optimizer.beta1 = 0.9;
  return config;
}

// A policy with everything that PPO needs around it.
struct Rig {
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  configs::Config config;
  Optimizer optimizer;
  std::unique_ptr<ReferencePolicy> reference;
  std::unique_ptr<Ppo> ppo;

  explicit Rig(const configs::Config& c)
      : config(c),
        optimizer(Initialised(), config.optimizer,
                  {.scale_loss = config.model.products == configs::Products::kFp16}) {
    transformer.UseProducts(config.model.products);
    if (config.algorithm.kl_coef > 0) {
      reference = std::make_unique<ReferencePolicy>(weights, train);
      reference->weights().Initialise(4, 0.1);  // not the policy itself: the KL is not 0
    }
    ppo = std::make_unique<Ppo>(AlgorithmContext{.config = config,
                                                 .train = train,
                                                 .weights = weights,
                                                 .optimizer = optimizer,
                                                 .reference = reference.get()});
  }
  // A new head is 0 and hides the trunk's gradient: this one is not.
  void DrawHead() {
    policy_model::Weights& critic = ppo->critic().weights();
    RandomStream random(5, 5);
    for (int64_t i = 0; i < 32; ++i)
      critic.flat().f32()[critic.table().score() + i] = 0.2f * random.NextNormal();
  }
  policy_model::Weights& Initialised() {
    weights.Initialise(3, 0.2);
    return weights;
  }
};

}  // namespace plumb::learner
