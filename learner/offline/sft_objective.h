// Supervised fine-tuning: cross-entropy on the tokens that demonstrations ask for, as an
// OfflineObjective.
//
// Purpose: one update and one held-out loss, for algorithm.name = "sft" under the offline loop and
// for the warm start before rollouts (learner/offline/sft.h). The loss is the mean over all scored
// tokens of a batch, in nats: a long answer weighs more than a short one, as in TRL's SFTTrainer.
// With a syntax penalty a batch adds to it
//   penalty * 1/B * sum over its B brackets b of code (1 - p(b)),
// the share of brackets that the model is expected not to write where the demonstrations have them;
// nothing in a batch without such brackets.
// Thread safety: one thread. Ownership: borrows everything. Errors: kInvalidArgument for a batch
// without a scored token.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "learner/offline/offline_objective.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

// Mean cross-entropy in nats a scored token; 0 where there is none.
double DemonstrationLoss(TrainStep& train, const policy_model::Weights& weights,
                         std::span<const Demonstration> data);

// Loss and perplexity; nothing is ranked.
OfflineEval EvaluateDemonstrations(TrainStep& train, const policy_model::Weights& weights,
                                   std::span<const Demonstration> heldout);

// What is asked of code besides its likelihood.
struct SyntaxPenalty {
  double weight = 0;
  // Of each demonstration to train on, [S] like its tokens: 1 where a token has a bracket. Empty:
  // of one that is not code, or not to be learned from so.
  std::vector<std::vector<uint8_t>> brackets = {};
};

class SftObjective : public OfflineObjective {
 public:
  // `weight_decay`: of a phase that has one of its own; else that of the optimizer.
  SftObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
               std::span<const Demonstration> data, std::span<const Demonstration> heldout,
               std::optional<double> weight_decay = std::nullopt, SyntaxPenalty syntax = {});

  int64_t size() const override { return static_cast<int64_t>(data_.size()); }
  // Besides what every objective returns: "sft/loss" before the update, "sft/tokens", the scored
  // tokens of the batch; with a syntax penalty "sft/syntax", the mean that it weighs.
  std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                      int64_t step) override;
  bool holds_out() const override { return !heldout_.empty(); }
  OfflineEval Evaluate() override;

 private:
  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  const std::span<const Demonstration> data_, heldout_;
  const std::optional<double> weight_decay_;
  const SyntaxPenalty syntax_;
};

}  // namespace plumb::learner
