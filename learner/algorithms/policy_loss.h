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
#include <cstdint>

#include "configs/choices.h"

namespace plumb::learner {

using configs::KlEstimator;

// Log-ratios are clamped to +- this before exp.
inline constexpr double kMaxLogRatio = 20;

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
    case KlEstimator::kAbs: return {std::abs(d), d > 0 ? S(1) : d < 0 ? S(-1) : S(0)};
    case KlEstimator::kK3: {
      const S x = std::clamp(-d, S(-20), S(20));
      const S value = std::exp(x) - x - 1;
      const bool clamped = x != -d || value > S(10);
      return {std::clamp(value, S(-10), S(10)), clamped ? S(0) : 1 - std::exp(x)};
    }
  }
  return {};
}

// The estimate's value with the derivative of k2, whose expectation is the gradient of the KL (the
// others' is not): `straight_through`, what verl writes as "k3+".
template <class S>
Value<S> KlEstimate(KlEstimator estimator, bool straight_through, S logprob, S reference) {
  Value<S> out = KlEstimate(estimator, logprob, reference);
  if (straight_through) out.derivative = logprob - reference;
  return out;
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

template <class S>
S LogRatio(S logprob, S old_logprob) {
  return std::clamp(logprob - old_logprob, S(-kMaxLogRatio), S(kMaxLogRatio));
}

// -A log p, its gradient cut off behind `factor`: what the objectives with a weight of their own
// share.
template <class S>
Surrogate<S> Weighted(S logprob, S advantage, S factor, S ratio, bool clipped) {
  const S derivative = -factor * advantage;
  return {derivative * logprob, derivative, ratio, clipped};
}

// -(4 / tau) sigmoid(tau (ratio - 1)) A: a clip without an edge. Gao et al., "Soft Adaptive Policy
// Optimization", 2025.
template <class S>
Surrogate<S> SoftSurrogate(S logprob, S old_logprob, S advantage, S tau) {
  const S ratio = std::exp(LogRatio(logprob, old_logprob));
  const S gate = 1 / (1 + std::exp(-tau * (ratio - 1)));
  return {-advantage * gate * 4 / tau, -advantage * 4 * gate * (1 - gate) * ratio, ratio, false};
}

// How far a policy of one token's probability moved: by its difference, or by the KL of the two
// outcomes "this token" and "another one".
enum class BinaryDivergence : uint8_t { kTotalVariation, kKl };

// -min(ratio, cap) A log p with a stopped gradient at the weight, and nothing where the token's
// divergence has passed clip.high (A > 0, upwards) or clip.low (else, downwards). Qi et al.,
// "Rethinking the Trust Region in LLM Reinforcement Learning", 2026; cap: clip.dual, 20 where that
// is off.
template <class S>
Surrogate<S> DivergenceMasked(BinaryDivergence kind, S logprob, S old_logprob, S advantage,
                              const ClipOptions& clip) {
  const S p = std::exp(logprob), old = std::exp(old_logprob);
  const bool up = advantage > 0;
  const S bound = up ? S(clip.high) : S(clip.low);
  bool keeps = up ? p - old <= bound : p - old >= -bound;
  if (kind == BinaryDivergence::kKl) {
    constexpr auto kTiny = S(1e-8);
    const S kl =
        old * (old_logprob - logprob) + (1 - old) * std::log((1 - old + kTiny) / (1 - p + kTiny));
    keeps = kl <= bound || (up ? p <= old : p >= old);
  }
  const S ratio = std::exp(LogRatio(logprob, old_logprob));
  const S cap = clip.dual > 0 ? S(clip.dual) : S(20);
  return Weighted(logprob, advantage, keeps ? std::min(ratio, cap) : S(0), ratio, !keeps);
}

// -(A log p - beta / 2 (log ratio)^2). Richemond et al., "Offline Regularised Reinforcement
// Learning for LLMs Alignment", 2024.
template <class S>
Surrogate<S> DirectReward(S logprob, S old_logprob, S advantage, S beta) {
  const S d = logprob - old_logprob;
  return {beta / 2 * d * d - advantage * logprob, beta * d - advantage,
          std::exp(LogRatio(logprob, old_logprob)), false};
}

// -ratio A, and coef |log ratio| besides for a token that was picked for its covariance
// (learner/algorithms/covariance.h).
template <class S>
Surrogate<S> KlCovSurrogate(S logprob, S old_logprob, S advantage, S coef, bool picked) {
  const S d = LogRatio(logprob, old_logprob), ratio = std::exp(d);
  Surrogate<S> out{-ratio * advantage, -ratio * advantage, ratio, false};
  if (!picked) return out;
  const Value<S> kl = KlEstimate(KlEstimator::kAbs, d, S(0));
  out.value += coef * kl.value;
  out.derivative += coef * kl.derivative;
  return out;
}

}  // namespace plumb::learner
