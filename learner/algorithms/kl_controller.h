// The weight of the KL term over a run: fixed, or steered so that the measured KL stays near a
// target.
//
// Purpose: template over the scalar; its one number is part of a checkpoint. Thread safety: one
// thread.
// Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences", 2019, section 2.2.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace plumb::learner {

template <class S>
class KlController {
 public:
  // target <= 0: fixed. `kl` of Update has to be measured as the target is meant (here: nats per
  // token, mean over answers).
  KlController(S coefficient, S target, S horizon)
      : coefficient_(coefficient), target_(target), horizon_(horizon) {}

  S coefficient() const { return coefficient_; }
  void Restore(S coefficient) { coefficient_ = coefficient; }

  // coef *= 1 + clip(kl / target - 1, +-0.2) * n / horizon, with n answers measured. A KL that is
  // not finite changes nothing: returns false.
  bool Update(S kl, int64_t n) {
    if (!std::isfinite(kl)) return false;
    if (!(target_ > 0)) return true;
    const S error = std::clamp(kl / target_ - 1, S(-0.2), S(0.2));
    coefficient_ *= 1 + error * static_cast<S>(n) / horizon_;
    return true;
  }

 private:
  S coefficient_;
  S target_, horizon_;  // constant after construction
};

}  // namespace plumb::learner
