// The scale of the loss under products in float16 (model.products = "fp16"): gradients that are
// small for that type (its steps below 2^-14 are 2^-24) are computed times the scale and divided by
// it before they are clipped and used.
//
// As torch.amp.GradScaler: an update whose gradients have overflowed (they are not finite) is
// skipped and the scale divided by 4; behind so many updates without that it is doubled. It begins
// at `largest` and never exceeds it. All scales are powers of two, so neither multiplying nor
// dividing rounds, and a run whose scale never changes has the bits of one without (where nothing
// is read as float16).
// Thread safety: one thread. Ownership: values. Errors: kNonFinite from Overflowed where the scale
// would fall below 1; it stays as it was then.
#pragma once

#include <cstdint>

namespace plumb::learner {

class LossScale {
 public:
  // What a checkpoint keeps. scale 0: there is none.
  struct State {
    double scale = 0;
    int64_t steps = 0;  // without an overflow since the scale last changed
    bool operator==(const State&) const = default;
  };

  // There is none: 1, and nothing changes it.
  LossScale() = default;
  // REQUIRES: `largest` a power of two from 1 on, `steps` >= 1.
  LossScale(double largest, int64_t steps);

  bool on() const { return largest_ > 0; }
  double scale() const { return on() ? state_.scale : 1; }
  const State& state() const { return state_; }
  // Of a checkpoint: one above `largest` is that, one that is none begins anew.
  void Restore(const State& state);

  // An update's gradients were finite, or were not. REQUIRES: on().
  void Passed();
  void Overflowed();

 private:
  double largest_ = 0;
  int64_t steps_ = 1;
  State state_;
};

}  // namespace plumb::learner
