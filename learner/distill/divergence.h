// How far a student's distribution over the next token is from a teacher's, known at the tokens
// that the teacher holds likeliest, with the derivative by the student's log-probs there.
//
// Purpose: templates over the scalar, checked in double against TRL and LibTorch
// (tests/golden/distill.py). p: the teacher, q: the student, both over the whole vocabulary; K: the
// teacher's likeliest tokens; "the rest": all others as one token, so that a divergence over K and
// the rest is one of two distributions. Derivatives are by log q of each token of K; the rest is
// what these leave. Thread safety: pure functions. Units: nats.
// Sources: forward KL over the likeliest tokens: Hinton et al., "Distilling the Knowledge in a
// Neural Network", 2015, cut off as in verl; generalised Jensen-Shannon divergence: Agarwal et al.,
// "On-Policy Distillation of Language Models", 2024, eq. 1 (GKD).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace plumb::learner {

// sum over K of p (log p - log q). Not below 0 only where K is every token: what the student gives
// to others costs nothing by itself, and q sums to 1.
template <class S>
S ForwardTopK(std::span<const S> teacher, std::span<const S> student, std::span<S> derivative) {
  S value = 0;
  for (size_t k = 0; k < teacher.size(); ++k) {
    const S p = std::exp(teacher[k]);
    derivative[k] = -p;
    if (p > 0) value += p * (teacher[k] - student[k]);
  }
  return value;
}

// beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, over K and the rest; at beta
// = 0 its limit KL(p || q), at 1 KL(q || p), as TRL has them. `rest`: there are other tokens; where
// the rounding leaves less than kLeast of them, no gradient comes of it.
template <class S>
S GeneralisedJsd(S beta, bool rest, std::span<const S> teacher, std::span<const S> student,
                 std::span<S> derivative) {
  constexpr S kLeast = S(1e-9);
  const bool forward = beta <= 0, reverse = beta >= 1;
  // The value of one token, and the derivative by its q.
  S value = 0;
  const auto token = [&](S p, S q) -> S {
    if (forward) {
      if (p > 0) value += p * std::log(p / q);
      return q > 0 ? -p / q : S(0);
    }
    if (reverse) {
      if (q <= 0) return 0;
      value += q * std::log(q / p);
      return std::log(q / p) + 1;
    }
    const S m = beta * p + (1 - beta) * q;
    if (p > 0) value += beta * p * std::log(p / m);
    if (q <= 0) return 0;
    const S share = std::log(q / m);
    value += (1 - beta) * q * share;
    return (1 - beta) * share;
  };
  S p_rest = 1, q_rest = 1;
  for (size_t k = 0; k < teacher.size(); ++k) {
    const S p = std::exp(teacher[k]), q = std::exp(student[k]);
    p_rest -= p;
    q_rest -= q;
    derivative[k] = token(p, q) * q;
  }
  if (!rest) return value;
  const bool known = p_rest > kLeast && q_rest > kLeast;
  const S slope = token(std::max(p_rest, kLeast), std::max(q_rest, kLeast));
  if (!known) return value;
  for (size_t k = 0; k < teacher.size(); ++k) derivative[k] -= slope * std::exp(student[k]);
  return value;
}

// The decision boundary between the teacher's two likeliest tokens a and b: max(0, m_p - m_q)^2,
// m = log of the odds of a against b, the teacher's up to `most`. The student is pushed until it
// decides as clearly as the teacher, and no further. First and second of each span: a, b; adds
// weight times the derivative.
template <class S>
S DecisionBoundary(std::span<const S> teacher, std::span<const S> student, S weight,
                   std::span<S> derivative, S most = S(5)) {
  if (teacher.size() < 2) return 0;
  const S wanted = std::min(teacher[0] - teacher[1], most);
  const S missing = wanted - (student[0] - student[1]);
  if (!(missing > 0)) return 0;
  derivative[0] -= 2 * weight * missing;
  derivative[1] += 2 * weight * missing;
  return missing * missing;
}

// mean over the width of (h - t)^2; derivative by h.
template <class S>
S FeatureDistance(std::span<const S> teacher, std::span<const S> student, std::span<S> derivative) {
  S value = 0;
  const S share = S(1) / static_cast<S>(teacher.size());
  for (size_t i = 0; i < teacher.size(); ++i) {
    const S d = student[i] - teacher[i];
    value += d * d * share;
    derivative[i] = 2 * d * share;
  }
  return value;
}

}  // namespace plumb::learner
