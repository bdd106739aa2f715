// One whole PPO batch on a tiny Llama, critic and reference included, against transformers and
// autograd in float64 (tests/golden/ppo_model.py): metrics and every parameter's gradient.
// learner/algorithms/ppo.h.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learner/algorithms/ppo.h"
#include "policy_model/families/model_config.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using policy_model::Transformer;
using policy_model::Weights;

// The gradient as the optimizer saw it, through its first moment (beta1 = 0.9, one update), against
// samples of each tensor.
void CompareGradients(const std::string& prefix, Weights& weights, Optimizer& optimizer,
                      const Json& golden, int& tensors) {
  for (const auto& e : weights.table().entries()) {
    for (const auto& part : e.parts) {
      const std::string name = prefix + part.file_tensor;
      ASSERT_TRUE(golden.contains(name)) << name;
      const Json& want = golden[name];
      const int64_t row = e.elements / e.shape[0];
      const float* at = optimizer.m().f32() + e.offset + part.row_begin * row;
      double diff = 0;
      const auto stride = want["stride"].get<int64_t>();
      for (size_t k = 0; k < want["values"].size(); ++k) {
        const double got = static_cast<double>(at[static_cast<int64_t>(k) * stride]) /
                           static_cast<double>(1 - 0.9f);
        diff += std::pow(got - want["values"][k].get<double>(), 2);
      }
      // At most 4 times the reference's own fp32 error; the moment and the token gradients were
      // rounded to float: 2 eps.
      EXPECT_LE(std::sqrt(diff),
                4 * want["gap"].get<double>() + 2.4e-7 * want["norm"].get<double>())
          << name;
      ++tensors;
    }
  }
}

TEST(PpoModelTest, AWholeBatchMatchesTransformers) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/ppo_model.json");
  ASSERT_TRUE(file.good());
  const Json golden = Json::parse(file), options = golden["options"];
  const std::string folder = PLUMB_SOURCE_DIR "/tests/golden/tiny_llama";
  const auto shape = policy_model::ReadModelConfig(folder);
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Load(folder);
  Transformer transformer(shape, Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 40);  // several micro-batches
  configs::Config config;
  config.algorithm.name = configs::AlgorithmName::kPpo;
  config.algorithm.kl_estimator = KlEstimator::kK1;
  config.algorithm.kl_placement = configs::KlPlacement::kReward;
  config.algorithm.kl_coef = options["kl_coef"];
  config.algorithm.gamma = options["gamma"];
  config.algorithm.lam = options["lam"];
  config.algorithm.clip_low = options["clip_low"];
  config.algorithm.clip_high = options["clip_high"];
  config.algorithm.dual_clip = options["dual_clip"];
  config.algorithm.entropy_coef = options["entropy_coef"];
  config.algorithm.logprob_gate = 0;
  config.rollout.temperature = options["temperature"];
  config.optimizer.beta1 = 0.9;
  config.optimizer.grad_clip = 0;
  Optimizer optimizer(weights, config.optimizer);
  ReferencePolicy reference(weights, train);
  for (int64_t i = 0; i < weights.flat().elements(); ++i)
    reference.weights().flat().f32()[i] *= 0.95f;
  Ppo ppo({.config = config,
           .train = train,
           .weights = weights,
           .optimizer = optimizer,
           .reference = &reference});
  Weights& critic = ppo.critic().weights();
  const auto head = golden["head"].get<std::vector<float>>();
  std::copy(head.begin(), head.end(), critic.flat().f32() + critic.table().score());

  std::vector<TrajectoryGroup> groups;
  for (size_t s = 0; s < golden["sequences"].size(); ++s) {
    Trajectory t;
    t.tokens = golden["sequences"][s].get<std::vector<int32_t>>();
    const auto prompt = golden["prompts"][s].get<size_t>();
    const auto old = golden["old"][s].get<std::vector<float>>();
    t.logprobs.assign(prompt, 0.0f);
    t.logprobs.insert(t.logprobs.end(), old.begin(), old.end());
    t.loss_mask.assign(prompt, 0);
    t.loss_mask.resize(t.tokens.size(), 1);
    t.policy_versions.assign(t.tokens.size(), 0);
    t.segments = {{.origin = Origin::kPrompt, .begin = 0, .end = static_cast<int32_t>(prompt)},
                  {.origin = Origin::kPolicy,
                   .begin = static_cast<int32_t>(prompt),
                   .end = static_cast<int32_t>(t.tokens.size())}};
    t.reward = golden["scores"][s];
    t.scored = true;
    TrajectoryGroup group;
    group.policy.version = 0;
    group.trajectories = {t};
    groups.push_back(group);
  }
  const auto metrics = ppo.Train(groups, 0.0, 0);
  const std::pair<const char*, const char*> names[] = {
      {"policy_loss", "policy/loss"}, {"value_loss", "value/loss"},
      {"kl", "objective/kl"},         {"explained_variance", "value/explained_variance"},
      {"entropy", "policy/entropy"},  {"ratio", "policy/ratio"}};
  for (const auto& [theirs, ours] : names) {
    const double want = golden["numbers"][theirs];
    // One number's gap can be small by luck: 1e-6 of it, some float epsilons, comes on top.
    EXPECT_NEAR(metrics.at(ours), want,
                4 * golden["gaps"][theirs].get<double>() + 1e-6 * std::max(1.0, std::abs(want)))
        << ours;
  }
  int tensors = 0;
  CompareGradients("policy.", weights, optimizer, golden["gradients"], tensors);
  CompareGradients("critic.", critic, ppo.critic().optimizer(), golden["gradients"], tensors);
  EXPECT_EQ(tensors, static_cast<int>(golden["gradients"].size()));
}

}  // namespace
}  // namespace plumb::learner
