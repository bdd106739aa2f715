// Losses of preference learning for one pair or one judged completion, with their derivatives.
//
// Purpose: templates over the scalar, checked in double against TRL's own code
// (tests/golden/preference_loss.py). What goes in are log-probs summed over the completion's
// tokens, of the policy and (where the loss has one) of the frozen reference. With d = (chosen -
// ref_chosen) - (rejected - ref_rejected), softplus(x) = log(1 + e^x), z = beta d - margin:
//   sigmoid  softplus(-z)                                         DPO, Rafailov 2023, eq. 7
//            (1 - e) softplus(-z) + e softplus(z)                 conservative DPO, Mitchell 2023
//   hinge    max(0, 1 - z)                                        SLiC-HF, Zhao 2023
//   ipo      (d' - 1 / (2 beta))^2                                IPO, Azar 2023, eq. 17
//   robust   ((1 - e) softplus(-z) - e softplus(z)) / (1 - 2 e)   rDPO, Chowdhury 2024
//   simpo    softplus(-(beta (c' - r') - gamma))                  SimPO, Meng 2024
//   orpo     -c' + beta softplus(-log_odds)                       ORPO, Hong 2024, eq. 6-7
//   kto      w (1 - sigmoid(+-beta ((y - ref_y) - kl)))           KTO, Ethayarajh 2024, eq. 7-8
// A margin is that of ODPO (2024); e > 0 is label_smoothing. d', c' and r' are of means over
// tokens; SimPO and ORPO have no reference; log_odds = logit(e^c') - logit(e^r'); kl carries no
// gradient. length_normalize divides each summed log-ratio by its number of tokens (sigmoid, hinge,
// robust).
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "configs/choices.h"

namespace plumb::learner {

using configs::PreferenceLossKind;

struct PreferenceLossOptions {
  PreferenceLossKind kind = PreferenceLossKind::kSigmoid;
  double beta = 0.1;
  double label_smoothing = 0;  // e, in [0, 0.5)
  double simpo_gamma = 0.5;    // subtracted after beta
  bool length_normalize = false;
};

inline bool UsesReference(PreferenceLossKind kind) {
  return kind != PreferenceLossKind::kSimpo && kind != PreferenceLossKind::kOrpo;
}

// Summed log-probs of a pair.
template <class S>
struct PairLogprobs {
  S chosen = 0, rejected = 0;  // of the policy
  // of the reference; not looked at by simpo and orpo
  S ref_chosen = 0, ref_rejected = 0;
  S chosen_tokens = 1, rejected_tokens = 1;  // scored tokens, at least 1
  S margin = 0;                              // in units of beta d; sigmoid, hinge and robust
};

template <class S>
struct PairLoss {
  S value = 0;
  S d_chosen = 0, d_rejected = 0;          // by the policy's sums
  S d_ref_chosen = 0, d_ref_rejected = 0;  // by the reference's sums
  // implicit rewards: beta times what the loss compares
  S reward_chosen = 0, reward_rejected = 0;
};

template <class S>
S Softplus(S x) {
  return std::max(x, S(0)) + std::log1p(std::exp(-std::abs(x)));
}

template <class S>
S Sigmoid(S x) {
  if (x >= 0) return 1 / (1 + std::exp(-x));
  const S e = std::exp(x);
  return e / (1 + e);
}

template <class S>
PairLoss<S> PreferenceLoss(const PairLogprobs<S>& p, const PreferenceLossOptions& options) {
  const S beta = static_cast<S>(options.beta), smooth = static_cast<S>(options.label_smoothing);
  const bool reference = UsesReference(options.kind);
  const bool mean =
      options.length_normalize || !reference || options.kind == PreferenceLossKind::kIpo;
  const S per_chosen = mean ? 1 / p.chosen_tokens : S(1),
          per_rejected = mean ? 1 / p.rejected_tokens : S(1);
  const S chosen = (reference ? p.chosen - p.ref_chosen : p.chosen) * per_chosen;
  const S rejected = (reference ? p.rejected - p.ref_rejected : p.rejected) * per_rejected;
  const S d = chosen - rejected, z = beta * d - p.margin;

  PairLoss<S> out;
  S slope = 0;  // of the loss by d
  S by_chosen = 0, by_rejected = 0;
  switch (options.kind) {
    case PreferenceLossKind::kSigmoid:
      out.value = (1 - smooth) * Softplus(-z) + smooth * Softplus(z);
      slope = beta * (smooth * Sigmoid(z) - (1 - smooth) * Sigmoid(-z));
      break;
    case PreferenceLossKind::kHinge:
      out.value = std::max(S(0), 1 - z);
      slope = z < 1 ? -beta : S(0);
      break;
    case PreferenceLossKind::kIpo: {
      const S error = d - 1 / (2 * beta);
      out.value = error * error;
      slope = 2 * error;
      break;
    }
    case PreferenceLossKind::kRobust: {
      const S scale = 1 / (1 - 2 * smooth);
      out.value = ((1 - smooth) * Softplus(-z) - smooth * Softplus(z)) * scale;
      slope = -beta * ((1 - smooth) * Sigmoid(-z) + smooth * Sigmoid(z)) * scale;
      break;
    }
    case PreferenceLossKind::kSimpo: {
      const S s = beta * d - static_cast<S>(options.simpo_gamma);
      out.value = (1 - smooth) * Softplus(-s) + smooth * Softplus(s);
      slope = beta * (smooth * Sigmoid(s) - (1 - smooth) * Sigmoid(-s));
      break;
    }
    case PreferenceLossKind::kOrpo: {
      // 1 - e^x through expm1: the mean log-prob of a learned answer comes close to 0.
      const S not_chosen = -std::expm1(chosen), not_rejected = -std::expm1(rejected);
      const S log_odds = d - (std::log(not_chosen) - std::log(not_rejected));
      out.value = -chosen + beta * Softplus(-log_odds);
      const S by_odds = -beta * Sigmoid(-log_odds);
      by_chosen = -1 + by_odds / not_chosen;
      by_rejected = -by_odds / not_rejected;
      break;
    }
    case PreferenceLossKind::kKto: PLUMB_CHECK(false, "kto is a loss of judged completions");
  }
  if (options.kind != PreferenceLossKind::kOrpo) {
    by_chosen = slope;
    by_rejected = -slope;
  }
  out.d_chosen = by_chosen * per_chosen;
  out.d_rejected = by_rejected * per_rejected;
  if (reference) {
    out.d_ref_chosen = -out.d_chosen;
    out.d_ref_rejected = -out.d_rejected;
  }
  out.reward_chosen = beta * chosen;
  out.reward_rejected = beta * rejected;
  return out;
}

template <class S>
struct KtoLoss {
  S value = 0;
  S derivative = 0;  // by the policy's summed log-prob; by the reference's it is the opposite
  S reward = 0;      // beta times the log-ratio
};

// One judged completion. `kl` is the batch's baseline (KtoBaseline); `weight` that of its class.
template <class S>
KtoLoss<S> KtoCompletionLoss(S logprob, S reference, S kl, bool desirable, S beta, S weight) {
  const S ratio = logprob - reference;
  const S sign = desirable ? S(1) : S(-1);
  const S x = sign * beta * (ratio - kl);
  const S rest = Sigmoid(-x);  // 1 - sigmoid(x) without cancellation
  return {weight * rest, -weight * sign * beta * Sigmoid(x) * rest, beta * ratio};
}

// The mean log-ratio over mismatched (prompt, completion) pairs of a batch, not below 0.
template <class S>
S KtoBaseline(S mean_log_ratio) {
  return std::max(mean_log_ratio, S(0));
}

}  // namespace plumb::learner
