// log sum_v p_v^2 of each scored token of a pass: what a policy expects of the probability of a
// token that it draws there.
//
// Purpose: a measure (RowMeasure) for WPO, whose weights compare an answer's log-probs with it
// (preference_batch.h). With z the logits it is logsumexp(2 z) - 2 logsumexp(z). No gradient.
// Thread safety: one thread. Ownership: its own buffers on the stream's device.
#pragma once

#include <vector>

#include "learner/update/train_step.h"

namespace plumb::learner {

class SquareSums : public RowMeasure {
 public:
  explicit SquareSums(const Stream& stream) : stream_(stream) {}

  size_t width() const override { return 1; }
  void Begin(std::span<const ScoredToken> rows) override { results_.assign(rows.size(), 0.0f); }
  void Take(std::span<float> out) override;
  void Weigh(std::span<const float> /*gradient*/) override {}
  void Forward(const kernels::Launch& launch, const policy_model::HeadRows& of) override;

 private:
  const Stream stream_;
  policy_model::FlatBuffer ids_, logprobs_, best_, lse_;  // of a chunk of rows
  std::vector<float> results_, once_;
};

}  // namespace plumb::learner
