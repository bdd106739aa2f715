// Learning from judged completions: KTO (Ethayarajh et al., "Model alignment as prospect theoretic
// optimization", 2024).
//
// Purpose: an OfflineObjective over completions that are desirable or not, without pairs. The loss
// of one is that of preference_loss.h, averaged over the batch; its reference point is the batch's
// own estimate of KL(policy || reference), as TRL 1.16's KTOTrainer makes it: the mean log-ratio
// over mismatched rows (the prompt of each with the completion of the one before it in the batch,
// the first with the last), not below 0, without gradient.
//   Batches are therefore fixed: rows are put in an order that follows from the seed once, and the
//   rest that fills no batch is left out (left_out()). Every epoch then meets the same mismatched
//   sequences, whose reference log-probs the cache knows.
//   REQUIRES of the loop: no shuffling of its own (OfflineOptions::shuffle = false).
// Thread safety: one thread. Ownership: borrows policy, optimizer, reference and cache; keeps the
// rows.
// Errors: kInvalidArgument for a row without a scored token, for a batch of 1 (the mismatched row
// would be the row itself).
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "learner/offline/offline_objective.h"
#include "learner/offline/preference_loss.h"
#include "learner/offline/reference_sums.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

struct KtoOptions {
  double beta = 0.1;
  double desirable_weight = 1, undesirable_weight = 1;
  int64_t batch = 16;
  int64_t max_tokens = 1024;  // a mismatched sequence is cut here
  uint64_t seed = 1;
  bool shuffle = true;
};

class KtoObjective : public OfflineObjective {
 public:
  KtoObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
               ReferencePolicy& reference, LogprobCache* cache, const KtoOptions& options,
               std::vector<LabelledCompletion> rows, std::vector<LabelledCompletion> heldout);

  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                      int64_t step) override;
  // accuracy: share of rows whose log-ratio lies on the right side of the reference point; margin:
  // mean reward of the desirable rows minus that of the others (0 where one kind is missing).
  bool holds_out() const override { return !heldout_.empty(); }
  OfflineEval Evaluate() override;
  std::string StateJson() const override { return ReferenceStateJson(reference_.digest()); }
  void RestoreState(const std::string& json) override {
    CheckReferenceState(json, reference_.digest());
  }

  int64_t reference_forwards() const { return reference_.forwards(); }
  int64_t left_out() const { return left_out_; }

  // The prompt of each row with the completion of the one before it; cut at max_tokens.
  static std::vector<Demonstration> Mismatched(std::span<const LabelledCompletion* const> batch,
                                               int64_t max_tokens);

 private:
  // Completions, their mismatched sequences, and views of the first and then the second.
  struct Batch {
    std::vector<Demonstration> mismatched;
    std::vector<SequenceView> views = {};
    std::vector<double> reference = {};  // log-probs summed, one a view
    double kl = 0;                       // the reference point
  };
  Batch BatchOf(std::span<const LabelledCompletion* const> rows);
  KtoLoss<double> LossOf(double logprob, double reference, double kl, bool good) const;
  // What came of completions of each kind: [0] those that are not desirable, [1] the others.
  struct Kinds {
    double reward[2] = {0, 0};
    int64_t count[2] = {0, 0}, right = 0;

    void Add(const KtoLoss<double>& loss, bool good, double bar);  // `bar`: beta times the KL
    std::optional<double> Reward(bool good) const;                 // the mean; none of this kind
  };

  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  ReferenceSums reference_;
  const KtoOptions options_;
  std::vector<LabelledCompletion> rows_, heldout_;
  int64_t left_out_ = 0;
};

}  // namespace plumb::learner
