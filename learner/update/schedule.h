// Learning rate over the steps of a phase: linear warm-up, then constant, linear or cosine decay to
// a fraction; or (wsd) constant until the last part, in which it falls in a line.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "configs/choices.h"
#include "configs/config.h"

namespace plumb::learner {

using configs::LrSchedule;

struct LrOptions {
  LrSchedule schedule = LrSchedule::kConstant;
  double peak = 0;
  double warmup_fraction = 0;
  double min_fraction = 0;
  double decay_fraction = 0.2;  // wsd: of the steps, at most all behind the warm-up
  int64_t steps = 1;            // of the whole phase
};

// Of a run's train steps.
inline LrOptions LrOptionsOf(const configs::Config& config) {
  const configs::OptimizerConfig& optimizer = config.optimizer;
  return {.schedule = optimizer.lr_schedule,
          .peak = optimizer.learning_rate,
          .warmup_fraction = optimizer.warmup_fraction,
          .min_fraction = optimizer.min_lr_fraction,
          .decay_fraction = optimizer.decay_fraction,
          .steps = config.run.steps};
}

// Rate of step `step` (0-based). Warm-up step i of w has (i + 1) / w of the peak.
inline double LearningRate(const LrOptions& o, int64_t step) {
  const auto warmup =
      static_cast<int64_t>(std::llround(o.warmup_fraction * static_cast<double>(o.steps)));
  if (step < warmup) return o.peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double span = static_cast<double>(std::max<int64_t>(1, o.steps - warmup));
  const double x = std::clamp(static_cast<double>(step - warmup) / span, 0.0, 1.0);
  switch (o.schedule) {
    case LrSchedule::kConstant: return o.peak;
    case LrSchedule::kLinear: return o.peak * (1 - (1 - o.min_fraction) * x);
    case LrSchedule::kCosine:
      return o.peak * (o.min_fraction +
                       (1 - o.min_fraction) * 0.5 * (1 + std::cos(3.14159265358979323846 * x)));
    case LrSchedule::kWsd: {
      const double decay = std::min(1.0, o.decay_fraction * static_cast<double>(o.steps) / span);
      const double fallen = decay > 0 ? std::max(0.0, (x - (1 - decay)) / decay) : 0.0;
      return o.peak * (1 - (1 - o.min_fraction) * fallen);
    }
  }
  return o.peak;
}

}  // namespace plumb::learner
