// The value function of PPO: V of the state before each token of an answer.
//
// Purpose: hides where the value comes from. own: a model with the policy's trunk (or of a folder)
// and a scalar head, with an optimizer of its own; shared: a scalar head on the policy's hidden
// states, whose gradient goes on into the policy. Values are read at the same rows as log-probs:
// the row of token t - 1 gives V(s_t).
// Thread safety: one thread. Ownership: owns its weights and optimizer; borrows the policy's
// TrainStep (shared).
// Errors: kInvalidArgument for a critic.path of another vocabulary, another tokenizer or without a
// scalar head.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "configs/config.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

// Throws what the constructor would say about critic.path; reads no weights.
void CheckCritic(const configs::Config& config, const policy_model::ModelShape& policy);

class Critic {
 public:
  // `policy` is copied (own, without critic.path) or only looked at for its shape. A new head
  // starts at 0. `policy_train` is kept.
  Critic(const configs::Config& config, const policy_model::Weights& policy,
         TrainStep& policy_train);

  bool shared() const { return train_ == nullptr; }
  // [sequences][scored tokens], without gradients. `policy`: the trunk, when shared.
  std::vector<std::vector<float>> Values(const policy_model::Weights& policy,
                                         std::span<const SequenceView> sequences);
  // own only: forward and backward of the critic's model into optimizer().gradients().
  void Accumulate(std::span<const SequenceView> sequences, const TrainStep::TokenLoss& loss);
  // shared only: what TrainStep::Accumulate of the policy needs.
  TrainStep::SharedHead SharedHead() { return {.head = &weights_, .grad = &optimizer_.grad()}; }

  policy_model::Weights& weights() { return weights_; }
  Optimizer& optimizer() { return optimizer_; }
  NamedModel model() { return {.name = "critic", .weights = &weights_, .optimizer = &optimizer_}; }

 private:
  policy_model::Weights weights_;
  Optimizer optimizer_;
  TrainStep& policy_train_;
  std::unique_ptr<policy_model::Transformer> transformer_;  // own
  std::unique_ptr<TrainStep> train_;                        // own
};

}  // namespace plumb::learner
