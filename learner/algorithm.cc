#include "learner/algorithm.h"

#include "common/error.h"
#include "learner/grpo.h"
#include "learner/ppo.h"

namespace plumb::learner {

std::unique_ptr<Algorithm> MakeAlgorithm(const AlgorithmContext& c) {
  if (c.config.algorithm.name == "grpo") {
    return std::make_unique<Grpo>(c.config, c.train, c.weights, c.optimizer, c.reference);
  }
  if (c.config.algorithm.name == "ppo") return std::make_unique<Ppo>(c);
  throw Error(ErrorCode::kInvalidArgument, "unknown algorithm.name '" + c.config.algorithm.name + "'");
}

bool NeedsReference(const configs::Config& config) { return config.algorithm.kl_coef > 0; }

}  // namespace plumb::learner
