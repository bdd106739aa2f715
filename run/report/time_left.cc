#include "run/report/time_left.h"

#include <algorithm>
#include <cmath>

namespace plumb::run {

void TimeLeft::Sizes(int64_t each, int64_t last, bool beside) {
  beside_ = beside;
  each_ = each;
  last_ = last;
}

void TimeLeft::Step(double seconds, int64_t step) {
  constexpr int64_t kEnough = 4;  // without the first
  ++steps_;
  if (steps_ == kEnough) recent_.pop_front();
  recent_.push_back(seconds / Share(step));
  if (recent_.size() > kWindow) recent_.pop_front();
}

void TimeLeft::Checkpoint(int64_t bytes, double seconds, double waited) {
  saved_bytes_ += static_cast<double>(bytes);
  waited_seconds_ += waited;
  saved_seconds_ += seconds;
}

void TimeLeft::Evaluation(double seconds) {
  ++evaluations_;
  evaluation_seconds_ += seconds;
}

double TimeLeft::StepSeconds() const {
  if (recent_.empty()) return 0;
  const double keep = std::exp2(-1 / kHalf);
  double sum = 0, weights = 0;
  for (const double seconds : recent_) {
    sum = keep * sum + seconds;
    weights = keep * weights + 1;
  }
  return sum / weights;
}

double TimeLeft::After(int64_t done) const {
  const int64_t steps = plan_.steps;
  // Before the last step: the checkpoint of `done` itself is not made yet, its evaluation is.
  const auto between = [&](int64_t every, int64_t from) {
    if (every <= 0 || from >= steps) return int64_t{0};
    return (steps - 1) / every - (from - 1) / every;
  };
  const int64_t checkpoints = between(plan_.checkpoint_every, std::max<int64_t>(1, done));
  const int64_t evaluations = between(plan_.eval_every, done + 1) + 1;
  const bool heard = saved_bytes_ > 0;
  const double written = heard ? saved_seconds_ / saved_bytes_ : 1 / kBytesPerSecond,
               waited = !beside_ ? written
                        : heard  ? waited_seconds_ / saved_bytes_
                                 : 1 / kCopiedPerSecond;
  const double saves = static_cast<double>(checkpoints) * static_cast<double>(each_) * waited +
                       static_cast<double>(last_) * written;
  const double evaluation =
      evaluations_ > 0 ? evaluation_seconds_ / static_cast<double>(evaluations_) : 0;
  double batches = 0;
  int64_t step = done;
  for (double share = 0; step < steps && (share = Share(step)) < 1; ++step) batches += share;
  batches += static_cast<double>(std::max<int64_t>(0, steps - step));
  return batches * StepSeconds() + saves + static_cast<double>(evaluations) * evaluation;
}

}  // namespace plumb::run
