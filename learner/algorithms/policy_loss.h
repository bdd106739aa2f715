// Loss formulas of policy-gradient methods, one token at a time, with their derivative by the
// log-prob.
//
// Purpose: templates over the scalar, so that the same code is checked in double against
// independent references and runs in float. Thread safety: pure functions.
// Sources: clipped surrogate: Schulman et al., "Proximal Policy Optimization Algorithms", 2017, eq.
// 7; asymmetric clip: Yu et al., "DAPO", 2025; dual clip: Ye et al., "Mastering Complex Control in
// MOBA Games", 2020; KL estimators: Schulman, "Approximating KL divergence", 2020.
#pragma once

#include <algorithm>
#include <cmath>

#include "configs/choices.h"

namespace plumb::learner {

using configs::KlEstimator;

template <class S>
struct Value {
  S value = 0;
  S derivative = 0;  // by the policy's log-prob
};

// Estimate of KL(policy || reference) from one sampled token. k3's log-ratio is clamped to +-20 and
// its value to +-10, as users of other systems expect; where a clamp is active the derivative is 0.
template <class S>
Value<S> KlEstimate(KlEstimator estimator, S logprob, S reference) {
  const S d = logprob - reference;
  switch (estimator) {
    case KlEstimator::kK1: return {d, S(1)};
    case KlEstimator::kK2: return {d * d / 2, d};
    case KlEstimator::kK3: {
      const S x = std::clamp(-d, S(-20), S(20));
      const S value = std::exp(x) - x - 1;
      const bool clamped = x != -d || value > S(10);
      return {std::clamp(value, S(-10), S(10)), clamped ? S(0) : 1 - std::exp(x)};
    }
  }
  return {};
}

struct ClipOptions {
  double low = 0.2;
  double high = 0.2;
  double dual = 0;  // 0: off; else c > 1 bounds the loss of negative advantages at -c * A
};

template <class S>
struct Surrogate {
  S value = 0;       // to be minimised
  S derivative = 0;  // by logprob
  S ratio = 1;       // exp(logprob - old)
  bool clipped = false;
};

// -min(ratio A, clip(ratio, 1 - low, 1 + high) A), with the dual clip on negative advantages. The
// log-ratio is clamped to +-20 before exp.
template <class S>
Surrogate<S> ClippedSurrogate(S logprob, S old_logprob, S advantage, const ClipOptions& clip) {
  Surrogate<S> out;
  const S log_ratio = std::clamp(logprob - old_logprob, S(-20), S(20));
  out.ratio = std::exp(log_ratio);
  const S bounded = std::clamp(out.ratio, S(1) - S(clip.low), S(1) + S(clip.high));
  const S plain = -out.ratio * advantage;
  const S cut = -bounded * advantage;
  out.value = std::max(plain, cut);
  out.clipped = cut > plain;
  if (clip.dual > 0 && advantage < 0 && out.value > -S(clip.dual) * advantage) {
    out.value = -S(clip.dual) * advantage;
    out.clipped = true;
  }
  out.derivative = out.clipped ? S(0) : plain;
  return out;
}

}  // namespace plumb::learner
