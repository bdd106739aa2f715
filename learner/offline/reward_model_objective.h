// Reward-model training as an OfflineObjective: learner/offline/reward_modeling.h under the offline
// loop.
//
// Thread safety: one thread. Ownership: borrows the trainer and the pairs. In an OfflineEval of it
// `margin` is the mean of the chosen minus the rejected score.
#pragma once

#include <span>
#include <vector>

#include "common/record/preference.h"
#include "learner/offline/offline_objective.h"
#include "learner/offline/reward_modeling.h"

namespace plumb::learner {

class RewardModelObjective : public OfflineObjective {
 public:
  RewardModelObjective(RewardModeling& modeling, std::span<const PreferencePair> pairs,
                       std::span<const PreferencePair> heldout)
      : modeling_(modeling), pairs_(pairs) {
    for (const PreferencePair& pair : heldout) heldout_.push_back(&pair);
  }

  int64_t size() const override { return static_cast<int64_t>(pairs_.size()); }
  std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                      int64_t) override {
    std::vector<const PreferencePair*> batch;
    for (const uint32_t row : rows) batch.push_back(&pairs_[row]);
    return modeling_.Train(batch, learning_rate);
  }
  bool holds_out() const override { return !heldout_.empty(); }
  OfflineEval Evaluate() override {
    if (heldout_.empty()) return {};
    const RewardModelEval e = modeling_.Evaluate(heldout_);
    return {.loss = e.loss,
            .accuracy = e.accuracy,
            .margin = e.chosen_mean - e.rejected_mean,
            .examples = e.pairs,
            .chosen = e.chosen_mean,
            .rejected = e.rejected_mean};
  }

 private:
  RewardModeling& modeling_;
  const std::span<const PreferencePair> pairs_;
  std::vector<const PreferencePair*> heldout_;
};

}  // namespace plumb::learner
