#include "learner/offline/curriculum.h"

#include <utility>

#include "common/base/error.h"
#include "learner/offline/offline_objective.h"

namespace plumb::learner {

Curriculum::Curriculum(std::vector<Phase> phases) : phases_(std::move(phases)) {
  int64_t before = 0;
  for (const Phase& phase : phases_) {
    PLUMB_CHECK(!phase.rows.empty() && phase.end >= before, "phase " + phase.name);
    before = phase.end;
  }
}

size_t Curriculum::PhaseOf(int64_t step) const {
  size_t phase = 0;
  while (phase < phases_.size() && step >= phases_[phase].end) ++phase;
  return phase;
}

std::vector<uint32_t> Curriculum::Batch(int64_t n, const configs::BatchRamp& batch, int64_t step,
                                        uint64_t seed, bool shuffle) const {
  const size_t phase = PhaseOf(step);
  if (phase == phases_.size()) return OfflineBatch(n, batch, step, seed, shuffle);
  const std::vector<uint32_t>& rows = phases_[phase].rows;
  // Each phase draws apart from the others and from what comes behind them.
  std::vector<uint32_t> out = OfflineBatch(static_cast<int64_t>(rows.size()), batch, step, seed,
                                           shuffle, kOfflineStream + 1 + phase);
  for (uint32_t& row : out) row = rows[row];
  return out;
}

}  // namespace plumb::learner
