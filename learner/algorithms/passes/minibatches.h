// The passes over what one step trains on, in minibatches that are drawn anew for each pass.
//
// Purpose: PPO and the GRPO family go over their samples in the same way. The order of a pass is a
// function of (seed, address, step, pass) alone; with one minibatch it is that of the batch. Thread
// safety: pure functions of their arguments. Ownership: none. Errors: none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "common/base/rng.h"
#include "common/record/trajectory.h"

namespace plumb::learner {

struct Passes {
  int64_t epochs = 1, minibatches = 1;
  uint64_t seed = 0, address = 0;  // of the order
};

struct PassPlace {
  bool first_pass = false;    // of the step
  bool first_update = false;  // nothing has changed since the batch came
  uint64_t update = 0;        // its number in the run; one without a sample has one, too
};

// `work(samples of the minibatch, place)` for each that has any. The samples change places.
template <class Sample, class Work>
void ForEachMinibatch(std::span<Sample> samples, const Passes& passes, int64_t step, Work work) {
  const size_t n = samples.size();
  const auto minibatches = static_cast<size_t>(std::max<int64_t>(1, passes.minibatches));
  for (int64_t epoch = 0; epoch < passes.epochs && n > 0; ++epoch) {
    const auto pass = static_cast<uint64_t>(step * passes.epochs + epoch);
    if (minibatches > 1) {
      RandomStream random(passes.seed, (passes.address << 32) + pass);
      for (size_t k = n - 1; k > 0; --k)
        std::swap(samples[k], samples[random.NextBelow(static_cast<uint32_t>(k + 1))]);
    }
    for (size_t b = 0; b < minibatches; ++b) {
      const size_t begin = n * b / minibatches, end = n * (b + 1) / minibatches;
      if (begin == end) continue;
      work(samples.subspan(begin, end - begin), PassPlace{.first_pass = epoch == 0,
                                                          .first_update = epoch == 0 && b == 0,
                                                          .update = pass * minibatches + b});
    }
  }
}

// All answers are of the version that the step begins with.
inline bool AllOfVersion(std::span<const TrajectoryGroup> groups, int64_t step) {
  return std::all_of(groups.begin(), groups.end(), [&](const TrajectoryGroup& group) {
    return group.trajectories.empty() || group.policy.version == step;
  });
}

}  // namespace plumb::learner
