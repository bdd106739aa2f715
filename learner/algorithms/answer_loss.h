// Policy-gradient loss of one whole answer, with its derivative by every token's log-prob.
//
// Purpose: what the GRPO family differs in: at which level the ratio is taken and what is done with
// it. Templates over the scalar, checked in double against TRL and verl. Thread safety: pure
// functions.
// With d_k = logprob_k - old_k of the K scored tokens of an answer, A_k the advantage, w_k the
// weight of a token, i_k its off-policy weight and f the clipped surrogate of policy_loss.h:
//   kClip at kToken     rho_k = exp(d_k)        sum_k w_k i_k f(rho_k, A_k)    PPO, GRPO, DAPO
//            kSequence  rho = exp(mean_k d_k)   f(rho, A) sum_k w_k i_k        GSPO, LUSPO
//            kProduct   rho = exp(sum_k d_k)    the same                       RLOO
//   kSapo               the same three with the soft surrogate for f
//   kCispo              sum_k w_k i_k * -stop_gradient(clip(rho_k, 1 - low, 1 + high)) A_k
//                       logprob_k: every token keeps a gradient, the weight is bounded
//   kGeometric          -A exp(mean_k c_k) g sum_k w_k, c_k = clip(d_k, -low, high) on the side
//                       where A asks for it, g the geometric mean of i_k                     GMPO
//   kVespo              sum_k w_k * -phi(W) A logprob_k, W = prod_k exp(d_k) i_k,
//                       phi(W) = e^lambda W^k e^(-lambda W), stopped
//   kPolicyGradient     sum_k w_k i_k * -A_k logprob_k                                       GPG
//   kDro, kDppoTv, kDppoKl   token by token, policy_loss.h
//   kClipCov            kClip without the tokens that were picked; kKlCov: policy_loss.h
// Sources, and what they are tested against: docs/algorithms.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/error.h"
#include "configs/choices.h"
#include "learner/algorithms/policy_loss.h"

namespace plumb::learner {

using configs::Objective;
using configs::RatioLevel;

struct AnswerLossOptions {
  Objective objective = Objective::kClip;
  RatioLevel level = RatioLevel::kToken;
  ClipOptions clip = {};
  double sapo_positive = 1, sapo_negative = 1.05;  // tau
  struct Gamma {
    double k = 0, lambda = 0;
  };
  Gamma vespo_positive = {2, 3}, vespo_negative = {3, 2};
  double dro_beta = 0.1;
  double cov_kl_coef = 1;
};

// All [K], K >= 1. Sequence levels, geometric and vespo need one advantage: advantage[0] is taken
// for all.
template <class S>
struct AnswerTokens {
  std::span<const S> advantage, logprob, old_logprob, weight;
  std::span<const S> importance = {};    // off-policy weights; empty: 1
  std::span<const uint8_t> picked = {};  // by their covariance; empty: none
};

template <class S>
struct AnswerLossResult {
  S value = 0;
  S ratio_sum = 0;      // over tokens; a sequence's ratio counts for each of them
  int64_t clipped = 0;  // tokens
};

// Objectives that take the ratio of a sequence as well as that of a token.
inline bool TakesSequenceRatio(Objective objective) {
  return objective == Objective::kClip || objective == Objective::kSapo;
}

namespace answer_loss {

// Objectives of one log-prob: of a token, or of a sequence as its log-ratio against 0.
template <class S>
Surrogate<S> OfOne(const AnswerLossOptions& o, S logprob, S old, S advantage, bool picked) {
  switch (o.objective) {
    case Objective::kClip: return ClippedSurrogate<S>(logprob, old, advantage, o.clip);
    case Objective::kSapo:
      return SoftSurrogate<S>(logprob, old, advantage,
                              S(advantage > 0 ? o.sapo_positive : o.sapo_negative));
    case Objective::kCispo: {
      const S ratio = std::exp(LogRatio(logprob, old));
      const S bounded = std::clamp(ratio, S(1) - S(o.clip.low), S(1) + S(o.clip.high));
      return Weighted(logprob, advantage, bounded, ratio, bounded != ratio);
    }
    case Objective::kPolicyGradient:
      return Weighted(logprob, advantage, S(1), std::exp(LogRatio(logprob, old)), false);
    case Objective::kDro: return DirectReward<S>(logprob, old, advantage, S(o.dro_beta));
    case Objective::kDppoTv:
      return DivergenceMasked(BinaryDivergence::kTotalVariation, logprob, old, advantage, o.clip);
    case Objective::kDppoKl:
      return DivergenceMasked(BinaryDivergence::kKl, logprob, old, advantage, o.clip);
    case Objective::kClipCov:
      if (picked) return {S(0), S(0), std::exp(LogRatio(logprob, old)), true};
      return ClippedSurrogate<S>(logprob, old, advantage, o.clip);
    case Objective::kKlCov:
      return KlCovSurrogate<S>(logprob, old, advantage, S(o.cov_kl_coef), picked);
    case Objective::kGeometric:
    case Objective::kVespo: break;
  }
  PLUMB_CHECK(false, "an objective of whole answers");
  return {};
}

// Clipped wider than PPO does, in log space, and before the mean: one token cannot carry away the
// answer. Zhao et al., "Geometric-Mean Policy Optimization", 2025.
template <class S>
AnswerLossResult<S> Geometric(const ClipOptions& clip, const AnswerTokens<S>& t,
                              std::span<S> derivative) {
  const size_t n = t.logprob.size();
  const S advantage = t.advantage[0], share = S(1) / static_cast<S>(n);
  AnswerLossResult<S> out;
  S mean = 0, total = 0, importance = 0;
  for (size_t k = 0; k < n; ++k) {
    const S d = t.logprob[k] - t.old_logprob[k];
    const S c = std::clamp(d, S(-clip.low), S(clip.high));
    const bool cut = advantage > 0 ? c < d : advantage < 0 && c > d;
    mean += (cut ? c : d) * share;
    total += t.weight[k];
    if (!t.importance.empty()) importance += std::log(t.importance[k] + S(1e-10)) * share;
    out.clipped += cut;
    derivative[k] = cut ? S(0) : S(1);
  }
  const S ratio = std::exp(std::clamp(mean, S(-kMaxLogRatio), S(kMaxLogRatio)));
  out.value = -advantage * ratio * std::exp(importance) * total;
  out.ratio_sum = ratio * static_cast<S>(n);
  for (S& d : derivative) d *= out.value * share;
  return out;
}

// Shen et al., "VESPO: Variational Sequence-Level Soft Policy Optimization", 2026.
template <class S>
AnswerLossResult<S> Vespo(const AnswerLossOptions& o, const AnswerTokens<S>& t,
                          std::span<S> derivative) {
  const size_t n = t.logprob.size();
  const S lowest = std::log(S(1e-8));
  S log_w = 0;
  AnswerLossResult<S> out;
  for (size_t k = 0; k < n; ++k) {
    const S d = LogRatio(t.logprob[k], t.old_logprob[k]);
    log_w += d;
    if (!t.importance.empty())
      log_w += std::clamp(std::log(t.importance[k]), lowest, S(kMaxLogRatio));
    out.ratio_sum += std::exp(d);
  }
  log_w = std::clamp(log_w, lowest, S(kMaxLogRatio));
  const S advantage = t.advantage[0];
  const auto& gamma = advantage >= 0 ? o.vespo_positive : o.vespo_negative;
  const S lambda = std::max(S(gamma.lambda), S(1e-4));
  const S phi = std::exp(lambda + S(gamma.k) * log_w - lambda * std::exp(log_w));
  for (size_t k = 0; k < n; ++k) {
    derivative[k] = -t.weight[k] * (std::isfinite(phi) ? phi : S(0)) * advantage;
    out.value += derivative[k] * t.logprob[k];
  }
  return out;
}

}  // namespace answer_loss

// `derivative` [K] is written.
template <class S>
AnswerLossResult<S> AnswerLoss(const AnswerLossOptions& options, const AnswerTokens<S>& t,
                               std::span<S> derivative) {
  const size_t n = t.logprob.size();
  PLUMB_CHECK(n > 0 && t.old_logprob.size() == n && t.weight.size() == n &&
              t.advantage.size() == n && derivative.size() == n &&
              (t.importance.empty() || t.importance.size() == n) &&
              (t.picked.empty() || t.picked.size() == n));
  if (options.objective == Objective::kGeometric)
    return answer_loss::Geometric(options.clip, t, derivative);
  if (options.objective == Objective::kVespo) return answer_loss::Vespo(options, t, derivative);
  const auto weight = [&](size_t k) {
    return t.importance.empty() ? t.weight[k] : t.weight[k] * t.importance[k];
  };
  AnswerLossResult<S> out;
  if (options.level == RatioLevel::kToken) {
    for (size_t k = 0; k < n; ++k) {
      const auto s = answer_loss::OfOne<S>(options, t.logprob[k], t.old_logprob[k], t.advantage[k],
                                           !t.picked.empty() && t.picked[k] != 0);
      const S w = weight(k);
      derivative[k] = w * s.derivative;
      out.value += w * s.value;
      out.ratio_sum += s.ratio;
      out.clipped += s.clipped;
    }
    return out;
  }
  PLUMB_CHECK(TakesSequenceRatio(options.objective), "an objective of tokens");
  S log_ratio = 0, total = 0;
  for (size_t k = 0; k < n; ++k) {
    log_ratio += t.logprob[k] - t.old_logprob[k];
    total += weight(k);
  }
  const S share = options.level == RatioLevel::kSequence ? S(1) / static_cast<S>(n) : S(1);
  const auto s =
      answer_loss::OfOne<S>(options, log_ratio * share, S(0), t.advantage[0], /*picked=*/false);
  out.value = total * s.value;
  out.ratio_sum = s.ratio * static_cast<S>(n);
  out.clipped = s.clipped ? static_cast<int64_t>(n) : 0;
  std::fill(derivative.begin(), derivative.end(), total * s.derivative * share);
  return out;
}

struct AnswerKlOptions {
  KlEstimator estimator = KlEstimator::kK3;
  bool straight_through = false;
  // The estimate times the ratio, which has a gradient, too: then its expectation under the policy
  // that sampled is the KL of the one that learns (DeepSeek-AI, "DeepSeek-V3.2", 2025, eq. 7).
  bool bias_correction = false;
};

// sum_k w_k kl_k of an answer, all spans [K]; adds into `derivative`.
template <class S>
struct AnswerKlResult {
  S value = 0;
  S kl_sum = 0;  // of the estimates by themselves
};
template <class S>
AnswerKlResult<S> AnswerKl(const AnswerKlOptions& options, RatioLevel level,
                           std::span<const S> logprob, std::span<const S> old_logprob,
                           std::span<const S> reference, std::span<const S> weight,
                           std::span<S> derivative) {
  const size_t n = logprob.size();
  PLUMB_CHECK(old_logprob.size() == n && reference.size() == n && weight.size() == n &&
              derivative.size() == n);
  AnswerKlResult<S> out;
  S log_ratio = 0, by_ratio = 0;  // of a sequence's
  const S share = level == RatioLevel::kSequence ? S(1) / static_cast<S>(n) : S(1);
  const bool whole = options.bias_correction && level != RatioLevel::kToken;
  for (size_t k = 0; whole && k < n; ++k) log_ratio += (logprob[k] - old_logprob[k]) * share;
  for (size_t k = 0; k < n; ++k) {
    const auto kl =
        KlEstimate<S>(options.estimator, options.straight_through, logprob[k], reference[k]);
    out.kl_sum += kl.value;
    if (!options.bias_correction) {
      out.value += weight[k] * kl.value;
      derivative[k] += weight[k] * kl.derivative;
      continue;
    }
    const S ratio =
        std::exp(LogRatio(whole ? log_ratio : logprob[k], whole ? S(0) : old_logprob[k]));
    out.value += weight[k] * ratio * kl.value;
    derivative[k] += weight[k] * ratio * (kl.derivative + (whole ? S(0) : kl.value));
    by_ratio += weight[k] * ratio * kl.value * share;
  }
  for (size_t k = 0; whole && k < n; ++k) derivative[k] += by_ratio;
  return out;
}

}  // namespace plumb::learner
