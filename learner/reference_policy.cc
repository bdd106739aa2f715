#include "learner/reference_policy.h"

namespace plumb::learner {

ReferencePolicy::ReferencePolicy(const policy_model::Weights& weights, TrainStep& train)
    : weights_(weights.shape(), weights.flat().stream(), weights.flat().dtype()), train_(train) {
  std::vector<std::byte> copy(weights.flat().bytes());
  weights.flat().CopyToHost(copy);
  weights_.flat().CopyFromHost(copy);
}

}  // namespace plumb::learner
