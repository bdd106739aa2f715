// The frozen policy that KL is measured against.
//
// Thread safety: one thread. Ownership: owns a copy of the weights as they were when it was made.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "learner/train_step.h"
#include "policy_model/weights.h"

namespace plumb::learner {

class ReferencePolicy {
 public:
  // Takes a copy of `weights`.
  ReferencePolicy(const policy_model::Weights& weights, TrainStep& train);

  // Log-probs of the masked tokens, [sequences][scored tokens].
  std::vector<std::vector<float>> Score(std::span<const SequenceView> sequences, float temperature) {
    return train_.Score(weights_, sequences, temperature);
  }
  policy_model::Weights& weights() { return weights_; }

 private:
  policy_model::Weights weights_;
  TrainStep& train_;
};

}  // namespace plumb::learner
