// How large the batch of a step is: whole from the first, or growing in a line over the first steps
// (optimizer.ramp_steps, ramp_start). In prompts of rollouts, in rows of stored data.
//
// Purpose: stored answers, leases and rows are numbered through, batch after batch, so everybody
// who goes from a step to its numbers and back has to have the same sizes; a resume finds them
// again, for they follow from the options alone.
// Thread safety: const after construction. Errors: none; sizes are at least 1.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

class BatchRamp {
 public:
  // The same in every step.
  BatchRamp(int64_t batch) : batch_(batch) {}  // NOLINT: a number of rows is such a thing
  // Step s of the first `steps` has start + (1 - start) s / steps of the batch, rounded down.
  BatchRamp(int64_t batch, int64_t steps, double start) : batch_(batch) {
    int64_t sum = 0;
    for (int64_t step = 0; step < steps; ++step) {
      before_.push_back(sum);
      const double share =
          start + (1 - start) * static_cast<double>(step) / static_cast<double>(steps);
      sum += std::clamp<int64_t>(
          static_cast<int64_t>(std::floor(share * static_cast<double>(batch))), 1, batch);
    }
    ramped_ = sum;
  }

  int64_t batch() const { return batch_; }  // of a step behind the ramp
  int64_t Of(int64_t step) const { return Before(step + 1) - Before(step); }
  // Rows of all steps before this one: the number of its first.
  int64_t Before(int64_t step) const {
    const auto steps = static_cast<int64_t>(before_.size());
    return step < steps ? before_[static_cast<size_t>(step)] : ramped_ + (step - steps) * batch_;
  }
  // The step that has the row of this number.
  int64_t StepOf(int64_t row) const {
    if (row >= ramped_) return static_cast<int64_t>(before_.size()) + (row - ramped_) / batch_;
    return std::upper_bound(before_.begin(), before_.end(), row) - before_.begin() - 1;
  }

 private:
  int64_t batch_;
  std::vector<int64_t> before_ = {};  // of the steps of the ramp
  int64_t ramped_ = 0;                // rows of all of these
};

// `batch`: of a step behind the ramp.
inline BatchRamp BatchRampOf(const OptimizerConfig& optimizer, int64_t batch) {
  return {batch, optimizer.ramp_steps, optimizer.ramp_start};
}

// Of the steps of a run: in prompts, or offline in rows.
inline BatchRamp TrainBatches(const Config& config) {
  if (!IsOffline(config)) return BatchRampOf(config.optimizer, config.rollout.prompts_per_step);
  return BatchRampOf(config.optimizer, config.algorithm.name == AlgorithmName::kSft
                                           ? config.sft.batch
                                           : config.preference.batch);
}

}  // namespace plumb::configs
