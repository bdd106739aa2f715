// Training of a reward model on preference pairs: a model with a scalar head learns to score the
// chosen answer higher.
//
// Purpose: one update over a batch of pairs, and how well the model ranks pairs it was not trained
// on. A score is the head's number at the last token of a whole sequence (prompt + completion) that
// is no padding, which is what the reward part kind = "reward_model" reads; the loss mask of a pair
// is not looked at. Loss: learner/offline/reward_model_loss.h, the mean over the batch. Both
// sequences of a pair stand in the same micro-batch.
// Thread safety: one thread. Ownership: borrows transformer, weights and optimizer; pairs only
// during a call.
// Errors: kInvalidArgument for a model without a scalar head, an empty sequence or one longer than
// max_positions (it names the row), an empty batch, a negative centering.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "learner/offline/reward_model_loss.h"
#include "learner/update/optimizer.h"
#include "policy_model/memory/weights.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

struct RewardModelEval {
  double loss = 0;  // mean over the pairs, centering included
  // share of pairs with chosen > rejected; equal scores count as half
  double accuracy = 0;
  double accuracy_stderr = 0;  // sqrt(p (1 - p) / n)
  double chosen_mean = 0, rejected_mean = 0;
  int64_t pairs = 0;
};

class RewardModeling {
 public:
  // `centering`: k of the loss, at least 0. A micro-batch holds at most `micro_batch_tokens`
  // tokens, or one pair.
  RewardModeling(policy_model::Transformer& transformer, policy_model::Weights& weights,
                 Optimizer& optimizer, int64_t micro_batch_tokens, double centering = 0);

  using Batch = std::span<const PreferencePair* const>;
  // Scores of both sequences of each pair, and the pair's margin (0 where it has none). No
  // gradients.
  std::vector<ScoredPair<float>> Score(Batch pairs);
  // Adds the gradient of the batch's mean loss to `grad` (float, flat_elements()); returns the
  // loss.
  double Accumulate(Batch pairs, const policy_model::Gradients& grad);
  // One update. Metrics "rm/loss", "rm/accuracy", "rm/margin" (mean of chosen - rejected),
  // "rm/reward_chosen", "rm/reward_rejected", all before the update; "optim/grad_norm", "optim/lr",
  // "optim/skipped", "perf/train_tokens", "perf/shared_tokens".
  std::map<std::string, double> Train(Batch pairs, double learning_rate);
  RewardModelEval Evaluate(Batch pairs);

 private:
  // Packs each micro-batch and runs it; `use` gets its pairs, their scores are in values_. Of
  // several ranks each computes every so manyth; all use all of them, in order. `finish` follows
  // those that this rank computed, whose scores `use` saw with `own`.
  void ForEachMicroBatch(Batch pairs, bool keep, const std::function<void(Batch, bool own)>& use,
                         const std::function<void()>& finish);
  // Packs sequences [first, last) into batch_.
  void Pack(Batch pairs, int32_t first, int32_t last);
  // Of the pair whose scores are values_[2 i] and values_[2 i + 1].
  ScoredPair<float> PairAt(const PreferencePair& pair, size_t i) const;

  policy_model::Transformer& transformer_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  const int64_t micro_batch_tokens_;
  const double centering_;
  policy_model::PackedBatch batch_;
  policy_model::PackPlan plan_;
  int64_t shared_tokens_ = 0;  // not computed again, since the last Train began
  std::vector<float> values_, own_values_, g_values_;
  std::vector<ScoredPair<float>> scored_;  // of the last Accumulate
};

}  // namespace plumb::learner
