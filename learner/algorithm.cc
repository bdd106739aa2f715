#include "learner/algorithm.h"

#include <set>

#include "common/error.h"
#include "learner/grpo.h"
#include "learner/ppo.h"

namespace plumb::learner {

std::unique_ptr<Algorithm> MakeAlgorithm(const AlgorithmContext& c) {
  static const std::set<std::string> kGrpoFamily = {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce++", "cispo"};
  const std::string& name = c.config.algorithm.name;
  if (kGrpoFamily.contains(name)) return std::make_unique<Grpo>(c.config, c.train, c.weights, c.optimizer, c.reference);
  if (name == "ppo") return std::make_unique<Ppo>(c);
  throw Error(ErrorCode::kInvalidArgument, "unknown algorithm.name '" + name + "'");
}

void CheckAlgorithm(const configs::Config& config, const policy_model::ModelShape& policy) {
  if (config.algorithm.name == "ppo") CheckCritic(config, policy);
}

bool NeedsReference(const configs::Config& config) { return config.algorithm.kl_coef > 0; }

}  // namespace plumb::learner
