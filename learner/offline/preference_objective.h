// Preference learning on pairs: DPO and its family, with reference log-probs from a cache.
//
// Purpose: an OfflineObjective over tokenized pairs. Losses that rank the answers of a batch cost
// one more forward, which finds their ranks, and so does WPO, which finds the weights of its pairs;
// with adapters that drop, those are of the model without dropout. The reference is the policy as
// it was when the objective was made; its log-probs of every sequence go through the LogprobCache
// port, so that each is computed once for all epochs and runs.
// Thread safety: one thread. Ownership: borrows policy, optimizer, cache and pairs; the reference
// is the caller's.
// Errors: kInvalidArgument for a pair without a scored token; those of the cache.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "common/record/preference.h"
#include "learner/offline/offline_objective.h"
#include "learner/offline/preference_batch.h"
#include "learner/offline/preference_loss.h"
#include "learner/offline/reference_sums.h"
#include "learner/offline/square_sums.h"
#include "learner/update/optimizer.h"
#include "learner/update/reference_policy.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

class PreferenceObjective : public OfflineObjective {
 public:
  // `reference` is nullptr for losses without one (UsesReference), `cache` may be nullptr.
  // The margin of a pair is its own where it has one. `losses`: what is minimised, `loss.kind` is
  // not looked at; empty: that kind. `ld_alpha`: LengthWeight. `weighted`: WrittenWeight.
  PreferenceObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                      ReferencePolicy* reference, LogprobCache* cache,
                      const PreferenceLossOptions& loss, std::span<const PreferencePair> pairs,
                      std::span<const PreferencePair> heldout,
                      std::vector<WeightedLoss> losses = {}, double ld_alpha = 1,
                      bool weighted = false);

  int64_t size() const override { return static_cast<int64_t>(pairs_.size()); }
  std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                      int64_t step) override;
  bool holds_out() const override { return !heldout_.empty(); }
  OfflineEval Evaluate() override;
  // Which reference the run compares with; RestoreState refuses another one (kConflict).
  std::string StateJson() const override;
  void RestoreState(const std::string& json) override;

  // Sequences that went through the reference model since this objective was made.
  int64_t reference_forwards() const { return reference_ ? reference_->forwards() : 0; }

 private:
  // Views of both sequences of each pair: chosen, rejected, chosen, ...
  static std::vector<SequenceView> Views(std::span<const PreferencePair* const> pairs);
  // one sum a view; zeros without a reference
  std::vector<double> Reference(std::span<const SequenceView> views);
  // `batch_share`: PairLogprobs::sft_share.
  PairLogprobs<double> Logprobs(const PreferencePair& pair, double chosen, double rejected,
                                double ref_chosen, double ref_rejected, double batch_share) const;
  // Summed with the weights of ld_alpha; `tokens` of one answer, `other` the other one's number.
  double Sum(std::span<const float> tokens, size_t other) const;
  // Log-probs of the scored tokens of each view, and under WPO the weight of each pair.
  struct Scores {
    std::vector<std::vector<float>> logprobs;
    std::vector<double> weights;
  };
  Scores Score(std::span<const SequenceView> views);
  std::vector<PairLoss<double>> Losses(std::span<const PreferencePair* const> batch,
                                       const Scores& policy,
                                       std::span<const double> reference) const;

  TrainStep& train_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  const PreferenceLossOptions options_;
  const std::vector<WeightedLoss> losses_;
  const double ld_alpha_;
  std::optional<SquareSums> squares_;  // under WPO
  const std::span<const PreferencePair> pairs_, heldout_;
  std::optional<ReferenceSums> reference_;
};

}  // namespace plumb::learner
