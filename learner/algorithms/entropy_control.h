// The weight of the entropy bonus over a run: fixed, or moved so that the entropy meets a target.
//
// Purpose: after each update the coefficient goes up by 0.005 where the entropy was at or below the
// target, and down by it above, within [0, 1]; it only counts in an update that follows one at or
// below the target. TRL 1.16's controller with its steps and bounds. Its two numbers are part of a
// checkpoint. Thread safety: one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace plumb::learner {

class EntropyControl {
 public:
  static constexpr double kStep = 0.005, kMin = 0, kMax = 1;

  // target <= 0: fixed.
  EntropyControl(double coefficient, double target) : target_(target), coefficient_(coefficient) {}

  bool adaptive() const { return target_ > 0; }
  // Of the next update.
  double applied() const { return !adaptive() || last_ <= target_ ? coefficient_ : 0; }
  double coefficient() const { return coefficient_; }
  double last() const { return last_; }
  void Restore(double coefficient, double last) {
    coefficient_ = coefficient;
    last_ = last;
  }

  // The mean entropy of an update's tokens. One that is not finite changes nothing.
  void Update(double entropy) {
    if (!adaptive() || !std::isfinite(entropy)) return;
    const double step = entropy <= target_ ? kStep : -kStep;
    coefficient_ = std::clamp(coefficient_ + step, kMin, kMax);
    last_ = entropy;
  }

 private:
  double target_;  // constant after construction
  double coefficient_;
  double last_ = std::numeric_limits<double>::infinity();  // no update was measured
};

}  // namespace plumb::learner
