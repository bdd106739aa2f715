// Policy-gradient loss of one whole answer, with its derivative by every token's log-prob.
//
// Purpose: what the GRPO family differs in: at which level the ratio is taken and what is done with
// it. Templates over the scalar, checked in double against TRL. Thread safety: pure functions.
// With d_k = logprob_k - old_k of the K scored tokens of an answer, A_k the advantage and w_k the
// weight of a token:
//   kToken     rho_k = exp(d_k)        sum_k w_k f(rho_k, A_k)    PPO, GRPO, DAPO
//   kSequence  rho = exp(mean_k d_k)   f(rho, A) sum_k w_k        GSPO
//   kProduct   rho = exp(sum_k d_k)    f(rho, A) sum_k w_k        RLOO, with the clip of TRL
//   f is the clipped surrogate of policy_loss.h.
//   kCispo     sum_k w_k * -stop_gradient(clip(rho_k, 1 - low, 1 + high)) A_k logprob_k: every
//              token keeps a gradient, the weight is bounded
// GSPO: Zheng et al., "Group Sequence Policy Optimization", 2025, eq. 5-7. RLOO: Ahmadian et al.,
// "Back to Basics", 2024. kCispo: MiniMax, "MiniMax-M1", 2025, eq. 4.
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

template <class S>
struct AnswerLossResult {
  S value = 0;
  S ratio_sum = 0;      // over tokens; a sequence's ratio counts for each of them
  int64_t clipped = 0;  // tokens
};

// All spans [K], K >= 1; `derivative` is written. Sequence levels need one advantage: advantage[0]
// is taken for all.
template <class S>
AnswerLossResult<S> AnswerLoss(Objective objective, RatioLevel level, const ClipOptions& clip,
                               std::span<const S> advantage, std::span<const S> logprob,
                               std::span<const S> old_logprob, std::span<const S> weight,
                               std::span<S> derivative) {
  const size_t n = logprob.size();
  PLUMB_CHECK(n > 0 && old_logprob.size() == n && weight.size() == n && advantage.size() == n &&
              derivative.size() == n);
  AnswerLossResult<S> out;
  if (objective == Objective::kCispo) {
    for (size_t k = 0; k < n; ++k) {
      const S ratio = std::exp(std::clamp(logprob[k] - old_logprob[k], S(-20), S(20)));
      const S bounded = std::clamp(ratio, S(1) - S(clip.low), S(1) + S(clip.high));
      derivative[k] = -weight[k] * bounded * advantage[k];
      out.value += derivative[k] * logprob[k];
      out.ratio_sum += ratio;
      out.clipped += bounded != ratio;
    }
    return out;
  }
  if (level == RatioLevel::kToken) {
    for (size_t k = 0; k < n; ++k) {
      const auto s = ClippedSurrogate<S>(logprob[k], old_logprob[k], advantage[k], clip);
      derivative[k] = weight[k] * s.derivative;
      out.value += weight[k] * s.value;
      out.ratio_sum += s.ratio;
      out.clipped += s.clipped;
    }
    return out;
  }
  S log_ratio = 0, total = 0;
  for (size_t k = 0; k < n; ++k) {
    log_ratio += logprob[k] - old_logprob[k];
    total += weight[k];
  }
  const S share = level == RatioLevel::kSequence ? S(1) / static_cast<S>(n) : S(1);
  const auto s = ClippedSurrogate<S>(log_ratio * share, S(0), advantage[0], clip);
  out.value = total * s.value;
  out.ratio_sum = s.ratio * static_cast<S>(n);
  out.clipped = s.clipped ? static_cast<int64_t>(n) : 0;
  std::fill(derivative.begin(), derivative.end(), total * s.derivative * share);
  return out;
}

}  // namespace plumb::learner
