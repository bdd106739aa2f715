// The critic's loss of one token, with its derivative by the value.
//
// Purpose: template over the scalar, checked in double against independent numbers. Thread safety:
// pure functions.
// Source: value clipping as in the PPO of OpenAI Baselines (Engstrom et al., "Implementation
// Matters in Deep Policy Gradients", 2020, section 3): the worse of the plain and the clipped
// squared error, halved.
#pragma once

#include <algorithm>

namespace plumb::learner {

template <class S>
struct ValueLoss {
  S value = 0;
  S derivative = 0;  // by the new value
  bool clipped = false;
};

// max((v - R)^2, (clamp(v, old - clip, old + clip) - R)^2) / 2. clip <= 0: no clipping.
template <class S>
ValueLoss<S> ClippedValueLoss(S value, S old_value, S target, S clip) {
  const S error = value - target;
  ValueLoss<S> out{error * error / 2, error, false};
  if (!(clip > 0)) return out;
  const S bounded = std::clamp(value, old_value - clip, old_value + clip);
  const S cut = (bounded - target) * (bounded - target) / 2;
  if (cut > out.value) {
    // Only a value outside the range gets here, and there the clamp has no slope.
    out = {cut, S(0), true};
  }
  return out;
}

}  // namespace plumb::learner
