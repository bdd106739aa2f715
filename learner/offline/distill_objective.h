// Demonstrations with a teacher beside them: what it says of each token, in three ways, as an
// OfflineObjective.
//
// Purpose: algorithm.name = "sft" with distill.teachers. The loss of a batch is the mean over its
// scored tokens of
//   [-log p(token), unless distill.only] + coef * d,
// d the L2 distance of the hidden states in front of the head for the first distill.feature_steps
// updates; then the divergence of the distributions (divergence.h) plus boundary_coef times the
// decision-boundary term; and with distill.perturb the same d once more from embeddings moved
// against it (student_measure.h). Rows that a teacher is unsure of are left out (distiller.h).
// Thread safety: one thread. Ownership: owns nothing; borrows everything. The step is all that a
// resume needs. Errors: kInvalidArgument for a batch without a scored token.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "learner/distill/distiller.h"
#include "learner/offline/offline_objective.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

class DistillObjective : public OfflineObjective {
 public:
  // datasets: of each of `data`, as distill.teachers names them.
  DistillObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                   Distiller& distiller, std::span<const Demonstration> data,
                   std::span<const std::string> datasets, std::span<const Demonstration> heldout);

  int64_t size() const override { return static_cast<int64_t>(data_.size()); }
  // Besides what every objective returns: "sft/loss", the cross-entropy before the update,
  // "sft/tokens" and "distill/..." (docs/metrics.md).
  std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                      int64_t step) override;
  bool holds_out() const override { return !heldout_.empty(); }
  // Loss and perplexity of the demonstrations alone, which runs without a teacher have, too.
  OfflineEval Evaluate() override;

 private:
  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  Distiller& distiller_;
  const std::span<const Demonstration> data_, heldout_;
  const std::span<const std::string> datasets_;
};

}  // namespace plumb::learner
