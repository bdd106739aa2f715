// A model and its optimizer as a checkpoint writes them, copied into host memory, so that training
// goes on while they are written.
//
// Purpose: the next update changes weights, masters and moments in place; what is written meanwhile
// has to be of one step. Only what is trained is copied, and of the optimizer only what the
// checkpoint holds. The memory is taken at the first Take and kept: bytes() of it.
// Thread safety: one thread at a time. Ownership: owns the copies. Units: bytes. Errors: kIo where
// memory ends.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "learner/update/optimizer.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

class CheckpointCopy {
 public:
  // The values of now. `optimizer`: masters, too, and `moments`: moments, too. REQUIRES: the same
  // model each time.
  void Take(const policy_model::Weights& weights, Optimizer& optimizer, bool masters, bool moments);

  const policy_model::Weights& weights() const { return *weights_; }
  // As Optimizer::sets; buffers that were not asked for in any Take are empty, gradients always.
  std::span<Optimizer::SetState> sets() { return sets_; }
  int64_t bytes();

 private:
  std::optional<policy_model::Weights> weights_;
  std::vector<Optimizer::SetState> sets_;
};

}  // namespace plumb::learner
