// Which rows a step of training without actors takes where these come in an order: kind by kind,
// then all of them.
//
// Purpose: sft.curriculum. Until the end of a phase a batch has rows of that phase alone, behind
// the last phase of all. As of OfflineBatch, which draws them, the rows of a step follow from
// (seed, step), so that the step is the whole cursor and a resume goes on bit for bit. A phase with
// fewer rows than the steps ask for goes through them again, in another order.
// Thread safety: const after construction. Ownership: owns its lists of rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/batch_ramp.h"

namespace plumb::learner {

class Curriculum {
 public:
  struct Phase {
    std::string name;            // for people
    int64_t end = 0;             // its steps are those from the end of the phase before up to here
    std::vector<uint32_t> rows;  // not empty
  };

  Curriculum() = default;  // no phases: all rows from the first step on
  // REQUIRES: rows in every phase, and ends that do not fall.
  explicit Curriculum(std::vector<Phase> phases);

  const std::vector<Phase>& phases() const { return phases_; }
  // 0 the first phase, phases().size() behind the last.
  size_t PhaseOf(int64_t step) const;
  // Numbers of rows among all `n`.
  std::vector<uint32_t> Batch(int64_t n, const configs::BatchRamp& batch, int64_t step,
                              uint64_t seed, bool shuffle) const;

 private:
  std::vector<Phase> phases_;
};

}  // namespace plumb::learner
