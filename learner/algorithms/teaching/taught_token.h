// The teacher's term of one token of an answer that the student wrote.
//
// Purpose: one place for the algorithms with rollouts. reverse_k1 is in the advantage already and
// adds nothing here; reverse_k3 is an estimate from the token (Schulman 2020), differentiated;
// the others are what the measure of the pass says (learner/distill).
// Thread safety: pure functions.
#pragma once

#include "learner/algorithms/policy_loss.h"
#include "learner/distill/distiller.h"

namespace plumb::learner {

struct Taught {
  double value = 0;       // of the loss, to be weighed as the token is
  double derivative = 0;  // by its log-prob
  double measured = 0;    // by what the measure said
  double shown = 0;       // the divergence for people, in nats
};

// `old`: the log-prob that the token's advantage was taken of.
inline Taught TaughtBy(const Distiller& distiller, float teacher, double old,
                       const ScoredToken& token) {
  const double coef = distiller.options().coef;
  if (distiller.by_advantage()) return {.shown = old - static_cast<double>(teacher)};
  if (distiller.by_token_kl()) {
    const auto kl = KlEstimate<double>(KlEstimator::kK3, static_cast<double>(token.logprob),
                                       static_cast<double>(teacher));
    return {.value = coef * kl.value, .derivative = coef * kl.derivative, .shown = kl.value};
  }
  const auto distance = static_cast<double>(token.measured[0]);
  return {.value = coef * distance, .measured = coef, .shown = distance};
}

}  // namespace plumb::learner
