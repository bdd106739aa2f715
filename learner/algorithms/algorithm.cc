#include "learner/algorithms/algorithm.h"

#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "learner/algorithms/grpo.h"
#include "learner/algorithms/ppo.h"

namespace plumb::learner {

std::unique_ptr<Algorithm> MakeAlgorithm(const AlgorithmContext& c) {
  if (configs::IsOffline(c.config)) {
    throw Error(ErrorCode::kInvalidArgument, "algorithm.name = \"" +
                                                 NameOf(c.config.algorithm.name) +
                                                 "\" trains on stored pairs, not on rollouts");
  }
  if (c.config.algorithm.name == configs::AlgorithmName::kPpo) return std::make_unique<Ppo>(c);
  return std::make_unique<Grpo>(c.config, c.train, c.weights, c.optimizer, c.reference,
                                c.distiller);
}

void CheckAlgorithm(const configs::Config& config, const policy_model::ModelShape& policy) {
  if (config.algorithm.name == configs::AlgorithmName::kPpo) CheckCritic(config, policy);
  CheckTeachers(config, policy);
}

bool NeedsReference(const configs::Config& config) {
  return config.algorithm.kl_coef > 0 || configs::TeachesItself(config);
}

}  // namespace plumb::learner
