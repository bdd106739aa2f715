// How each running sample is drawn, and which rows of a step are drawn alike.
//
// Purpose: requests of one batch may ask for other temperatures and filters than the engine's; the
// sampler takes one set of options a call, so neighbours with the same are one call. Thread safety:
// none. Ownership: of plain values. Allocation: none after construction. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/sampling.h"

namespace plumb::actor {

class RowSampling {
 public:
  struct Run {
    int64_t begin = 0, rows = 0;
    kernels::SamplingOptions options;
  };

  RowSampling(const kernels::SamplingOptions& usual, int32_t slots)
      : usual_(usual), slots_(static_cast<size_t>(slots), usual) {}

  // A new sample in `slot`; without options: the usual ones. `greedy`: at temperature 0.
  void Set(int32_t slot, const std::optional<kernels::SamplingOptions>& options,
           bool greedy = false) {
    kernels::SamplingOptions& own = slots_[static_cast<size_t>(slot)];
    own = options.value_or(usual_);
    if (greedy) own.temperature = 0;
  }

  const kernels::SamplingOptions& of(int32_t slot) const {
    return slots_[static_cast<size_t>(slot)];
  }
  bool AllAlike(std::span<const int32_t> row_slots) const {
    for (const int32_t slot : row_slots) {
      if (!(of(slot) == of(row_slots[0]))) return false;
    }
    return true;
  }

  // `call` sees every run of rows that are drawn alike, in order. `row_slots`: the slot of each
  // row.
  template <class Call>
  void ForRuns(std::span<const int32_t> row_slots, Call call) const {
    Run run;
    for (const int32_t slot : row_slots) {
      const kernels::SamplingOptions& own = slots_[static_cast<size_t>(slot)];
      if (run.rows > 0 && !(own == run.options)) {
        call(run);
        run = {.begin = run.begin + run.rows, .rows = 0, .options = own};
      }
      run.options = own;
      ++run.rows;
    }
    if (run.rows > 0) call(run);
  }

 private:
  const kernels::SamplingOptions usual_;
  std::vector<kernels::SamplingOptions> slots_;
};

}  // namespace plumb::actor
