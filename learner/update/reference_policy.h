// The frozen policy that KL is measured against.
//
// Purpose: where the base is trained it is a copy of the weights as they were. Where adapters are
// trained it is the base with the adapters off, which needs no memory; or, after a warm start of
// theirs, the base with a copy of them. Frozen but for Mix, which moves a copy towards the policy
// (algorithm.reference_sync_every). Thread safety: one thread. Ownership: owns what it copied,
// shares what is not trained.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "learner/update/train_step.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

class ReferencePolicy {
 public:
  // `keep_adapters`: they were trained already, and are a part of the reference. `digest`: of the
  // whole model, where `weights` are a share of one; else empty.
  ReferencePolicy(const policy_model::Weights& weights, TrainStep& train,
                  bool keep_adapters = false, Digest digest = {});

  // Log-probs of the masked tokens, [sequences][scored tokens]; its own routers choose the experts.
  std::vector<std::vector<float>> Score(std::span<const SequenceView> sequences,
                                        float temperature) {
    return train_.Score(weights_, sequences, temperature, /*replay=*/false);
  }
  policy_model::Weights& weights() { return weights_; }
  TrainStep& train() { return train_; }
  Digest ComputeDigest() const { return of_whole_.empty() ? weights_.ComputeDigest() : of_whole_; }

  // reference <- share * policy + (1 - share) * reference, of every set that it has a copy of; in
  // float32, rounded to the type of the weights. REQUIRES: weights of the same shape.
  void Mix(const policy_model::Weights& policy, double share);

 private:
  policy_model::Weights weights_;
  TrainStep& train_;
  const Digest of_whole_;
};

}  // namespace plumb::learner
