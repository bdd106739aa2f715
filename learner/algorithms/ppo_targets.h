// What PPO regresses on: advantages and returns of a batch of answers, from scores, the KL to the
// reference and values.
//
// Purpose: the whole way from rewards to targets as one template over the scalar, checked in double
// against an independent script. Thread safety: pure functions. Arrays are over the scored tokens
// of one answer, [T_i].
// Source: Ouyang et al., "Training language models to follow instructions with human feedback",
// 2022, eq. 2: the KL is a per-token penalty in the reward, the score comes with the last token.
#pragma once

#include <vector>

#include "learner/algorithms/gae.h"
#include "learner/algorithms/policy_loss.h"

namespace plumb::learner {

template <class S>
struct PpoAnswer {
  std::vector<S> old_logprob;  // of the policy that sampled
  std::vector<S> reference;    // empty: no KL in the reward
  std::vector<S> values;       // of the critic before the update
  std::vector<S> rewards;      // in: scores at their tokens; out: with the KL penalty
  std::vector<S> advantages;   // out
  std::vector<S> returns;      // out
  S kl = 0;                    // out: sum of the estimator over the tokens
};

struct PpoTargetOptions {
  double gamma = 1;
  double lam = 1;
  double kl_coef = 0;
  KlEstimator estimator = KlEstimator::kK1;
  bool whiten = true;
};

// Fills advantages (whitened over the batch when asked for; returns are of the advantages before
// that), returns and kl.
template <class S>
void PpoTargets(std::vector<PpoAnswer<S>>& answers, const PpoTargetOptions& options) {
  std::vector<std::vector<S>> advantages;
  for (PpoAnswer<S>& a : answers) {
    a.kl = 0;
    for (size_t t = 0; t < a.reference.size(); ++t) {
      const S kl = KlEstimate<S>(options.estimator, a.old_logprob[t], a.reference[t]).value;
      a.kl += kl;
      a.rewards[t] -= S(options.kl_coef) * kl;
    }
    advantages.emplace_back(a.rewards.size());
    a.returns.resize(a.rewards.size());
    Gae<S>(a.rewards, a.values, S(options.gamma), S(options.lam), advantages.back(), a.returns);
  }
  if (options.whiten) Whiten<S>(advantages);
  for (size_t i = 0; i < answers.size(); ++i) answers[i].advantages = std::move(advantages[i]);
}

}  // namespace plumb::learner
