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
// and, with a and b for beta times the log-ratio of the chosen and of the rejected answer, q =
// sigmoid(z):
//   exo_pair   q log(q / (1 - e)) + (1 - q) log((1 - q) / e)      EXO, Ji 2024, eq. 16
//   nca_pair   softplus(-a) + softplus(a) / 2 + softplus(b) / 2   NCA, Chen 2024
//   bco_pair   softplus(-a) + softplus(b)                         BCO, Jung 2024, without its shift
//   sppo_hard  (a / beta - 1 / (2 beta))^2 + (b / beta + 1 / (2 beta))^2   SPPO, Wu 2024, eq. 4.7
//   apo_zero   1 - sigmoid(a) + sigmoid(b)                        APO, D'Oosterlinck 2024, eq. 7
//   apo_down   sigmoid(a) + 1 - sigmoid(a - b)                    the same, eq. 8
//   discopop   softplus(-z) (1 - m) + e^-z m, m = sigmoid(z / tau)   DiscoPOP, Lu 2024, eq. 5
//   sft        -chosen * sft_share                                the batch's mean over tokens
//   sigmoid_norm  sigmoid with length_normalize
//   aot, aot_unpaired  of whole batches: preference_batch.h
// A margin is that of ODPO (2024), of sigmoid, hinge and robust; e > 0 is label_smoothing. d', c'
// and r' are of means over tokens; SimPO, ORPO and sft have no reference; log_odds = logit(e^c') -
// logit(e^r'); kl carries no gradient. length_normalize divides each summed log-ratio by its number
// of tokens (sigmoid, hinge, robust). A divergence other than the reverse KL replaces the
// log-ratios of sigmoid, hinge, ipo, robust, exo_pair, discopop and sigmoid_norm by f'(ratio):
// Wang et al., "Beyond Reverse KL", 2023.
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "configs/choices.h"

namespace plumb::learner {

using configs::Divergence;
using configs::PreferenceLossKind;

struct PreferenceLossOptions {
  PreferenceLossKind kind = PreferenceLossKind::kSigmoid;
  double beta = 0.1;
  double label_smoothing = 0;  // e, in [0, 0.5)
  double simpo_gamma = 0.5;    // subtracted after beta
  bool length_normalize = false;
  Divergence divergence = Divergence::kReverseKl;
  double divergence_alpha = 1;
  double discopop_tau = 0.05;
};

inline bool UsesReference(PreferenceLossKind kind) {
  return kind != PreferenceLossKind::kSimpo && kind != PreferenceLossKind::kOrpo &&
         kind != PreferenceLossKind::kSft;
}
// It compares the two answers' scores, which a divergence and a margin may change; the others that
// have a reference take each answer's log-ratio by itself.
inline bool ComparesScores(PreferenceLossKind kind) {
  switch (kind) {
    case PreferenceLossKind::kSigmoid:
    case PreferenceLossKind::kHinge:
    case PreferenceLossKind::kIpo:
    case PreferenceLossKind::kRobust:
    case PreferenceLossKind::kExoPair:
    case PreferenceLossKind::kDiscopop:
    case PreferenceLossKind::kSigmoidNorm: return true;
    default: return false;
  }
}
// It pairs answers of a batch by their rank.
inline bool ComparesBatch(PreferenceLossKind kind) {
  return kind == PreferenceLossKind::kAot || kind == PreferenceLossKind::kAotUnpaired;
}

// Summed log-probs of a pair.
template <class S>
struct PairLogprobs {
  S chosen = 0, rejected = 0;  // of the policy
  // of the reference; not looked at by simpo, orpo and sft
  S ref_chosen = 0, ref_rejected = 0;
  S chosen_tokens = 1, rejected_tokens = 1;  // scored tokens, at least 1
  S margin = 0;                              // in units of beta d; sigmoid, hinge and robust
  S sft_share = 1;                           // pairs / chosen tokens of the batch; sft
  S weight = 1;                              // of the pair's loss (WrittenWeight); a constant
};

template <class S>
struct PairLoss {
  S value = 0;
  S d_chosen = 0, d_rejected = 0;          // by the policy's sums
  S d_ref_chosen = 0, d_ref_rejected = 0;  // by the reference's sums
  // implicit rewards: beta times what the loss compares
  S reward_chosen = 0, reward_rejected = 0;
};

// 1 where the chosen answer has the higher score, else 0; equal ones count as half: who gives every
// answer the same score ranks like a coin.
inline double RankedRight(double chosen, double rejected) {
  return chosen > rejected ? 1 : chosen == rejected ? 0.5 : 0;
}

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
struct DivergenceScore {
  S value = 0;
  S derivative = 0;  // by the log-ratio
};

// f'(ratio), from its logarithm; e^x no larger than e^80.
template <class S>
DivergenceScore<S> ScoreOf(Divergence divergence, S alpha, S log_ratio) {
  const auto power = [](S x) { return std::exp(std::min(x, S(80))); };
  switch (divergence) {
    case Divergence::kReverseKl: break;
    case Divergence::kForwardKl: {
      const S e = power(-log_ratio);
      return {1 - e, -log_ratio > 80 ? S(0) : e};
    }
    case Divergence::kJensenShannon:
      return {std::log(S(2)) - Softplus(-log_ratio), Sigmoid(-log_ratio)};
    case Divergence::kAlpha: {
      const S rate = alpha - 1;
      if (std::abs(rate) < S(1e-6)) break;  // its limit
      const S x = rate * log_ratio, e = power(x);
      return {(e - 1) / rate, x > 80 ? S(0) : e};
    }
  }
  return {log_ratio, S(1)};
}

namespace preference_loss {

template <class S>
struct Slope {
  S value = 0;
  S by_chosen = 0, by_rejected = 0;
};

// Of the difference of two scores, d, and z = beta d - margin.
template <class S>
Slope<S> OfDifference(const PreferenceLossOptions& options, S d, S z) {
  const S beta = static_cast<S>(options.beta), smooth = static_cast<S>(options.label_smoothing);
  S value = 0, slope = 0;  // of the loss by d
  switch (options.kind) {
    case PreferenceLossKind::kHinge:
      value = std::max(S(0), 1 - z);
      slope = z < 1 ? -beta : S(0);
      break;
    case PreferenceLossKind::kIpo: {
      const S error = d - 1 / (2 * beta);
      value = error * error;
      slope = 2 * error;
      break;
    }
    case PreferenceLossKind::kRobust: {
      const S scale = 1 / (1 - 2 * smooth);
      value = ((1 - smooth) * Softplus(-z) - smooth * Softplus(z)) * scale;
      slope = -beta * ((1 - smooth) * Sigmoid(-z) + smooth * Sigmoid(z)) * scale;
      break;
    }
    case PreferenceLossKind::kExoPair: {
      const S q = Sigmoid(z), odds = std::log1p(-smooth) - std::log(smooth);
      value = q * (-Softplus(-z) - std::log1p(-smooth)) +
              Sigmoid(-z) * (-Softplus(z) - std::log(smooth));
      slope = beta * q * Sigmoid(-z) * (z - odds);
      break;
    }
    case PreferenceLossKind::kDiscopop: {
      const S tau = static_cast<S>(options.discopop_tau);
      const S m = Sigmoid(z / tau), rest = Sigmoid(-z / tau);
      const S falling = std::exp(-z - Softplus(-z / tau));  // e^-z m
      value = Softplus(-z) * rest + falling;
      slope =
          beta * (-Sigmoid(-z) * rest - falling + (falling * rest - Softplus(-z) * m * rest) / tau);
      break;
    }
    default:  // sigmoid and what is the same of other scores
      value = (1 - smooth) * Softplus(-z) + smooth * Softplus(z);
      slope = beta * (smooth * Sigmoid(z) - (1 - smooth) * Sigmoid(-z));
      break;
  }
  return {value, slope, -slope};
}

// Of the two log-ratios, each by itself.
template <class S>
Slope<S> OfRatios(const PreferenceLossOptions& options, S chosen, S rejected) {
  const S beta = static_cast<S>(options.beta), a = beta * chosen, b = beta * rejected;
  switch (options.kind) {
    case PreferenceLossKind::kNcaPair:
      return {Softplus(-a) + Softplus(a) / 2 + Softplus(b) / 2,
              beta * (Sigmoid(a) / 2 - Sigmoid(-a)), beta * Sigmoid(b) / 2};
    case PreferenceLossKind::kBcoPair:
      return {Softplus(-a) + Softplus(b), -beta * Sigmoid(-a), beta * Sigmoid(b)};
    case PreferenceLossKind::kSppoHard: {
      const S win = chosen - 1 / (2 * beta), loss = rejected + 1 / (2 * beta);
      return {win * win + loss * loss, 2 * win, 2 * loss};
    }
    case PreferenceLossKind::kApoZero:
      return {Sigmoid(-a) + Sigmoid(b), -beta * Sigmoid(a) * Sigmoid(-a),
              beta * Sigmoid(b) * Sigmoid(-b)};
    case PreferenceLossKind::kApoDown: {
      const S apart = beta * Sigmoid(a - b) * Sigmoid(b - a);
      return {Sigmoid(a) + Sigmoid(b - a), beta * Sigmoid(a) * Sigmoid(-a) - apart, apart};
    }
    default: PLUMB_CHECK(false, "a loss of whole batches, or of judged completions");
  }
  return {};
}

// 1 - e^x through expm1: the mean log-prob of a learned answer comes close to 0.
template <class S>
Slope<S> OddsRatio(S beta, S chosen, S rejected) {
  const S not_chosen = -std::expm1(chosen), not_rejected = -std::expm1(rejected);
  const S log_odds = chosen - rejected - (std::log(not_chosen) - std::log(not_rejected));
  const S by_odds = -beta * Sigmoid(-log_odds);
  return {-chosen + beta * Softplus(-log_odds), -1 + by_odds / not_chosen, -by_odds / not_rejected};
}

}  // namespace preference_loss

template <class S>
PairLoss<S> PreferenceLoss(const PairLogprobs<S>& p, const PreferenceLossOptions& options) {
  const S beta = static_cast<S>(options.beta);
  const bool reference = UsesReference(options.kind), scores = ComparesScores(options.kind);
  const bool mean =
      (scores && options.length_normalize) || options.kind == PreferenceLossKind::kIpo ||
      options.kind == PreferenceLossKind::kSigmoidNorm ||
      options.kind == PreferenceLossKind::kSimpo || options.kind == PreferenceLossKind::kOrpo;
  const S per_chosen = mean ? 1 / p.chosen_tokens : S(1),
          per_rejected = mean ? 1 / p.rejected_tokens : S(1);
  const S ratio_chosen = reference ? p.chosen - p.ref_chosen : p.chosen,
          ratio_rejected = reference ? p.rejected - p.ref_rejected : p.rejected;
  const S chosen = ratio_chosen * per_chosen, rejected = ratio_rejected * per_rejected;

  PairLoss<S> out;
  preference_loss::Slope<S> slope;
  if (options.kind == PreferenceLossKind::kSft) {
    slope = {-p.chosen * p.sft_share, -p.sft_share, S(0)};
  } else if (options.kind == PreferenceLossKind::kOrpo) {
    slope = preference_loss::OddsRatio(beta, chosen, rejected);
  } else if (options.kind == PreferenceLossKind::kSimpo) {
    const S d = chosen - rejected;
    slope =
        preference_loss::OfDifference(options, d, beta * d - static_cast<S>(options.simpo_gamma));
  } else if (scores) {
    const auto alpha = static_cast<S>(options.divergence_alpha);
    const auto of_chosen = ScoreOf(options.divergence, alpha, ratio_chosen),
               of_rejected = ScoreOf(options.divergence, alpha, ratio_rejected);
    const S d = of_chosen.value * per_chosen - of_rejected.value * per_rejected;
    const bool margin = options.kind == PreferenceLossKind::kSigmoid ||
                        options.kind == PreferenceLossKind::kHinge ||
                        options.kind == PreferenceLossKind::kRobust;
    slope = preference_loss::OfDifference(options, d, margin ? beta * d - p.margin : beta * d);
    slope.by_chosen *= of_chosen.derivative;
    slope.by_rejected *= of_rejected.derivative;
  } else {
    slope = preference_loss::OfRatios(options, chosen, rejected);
  }
  out.value = slope.value;
  out.d_chosen = slope.by_chosen * per_chosen;
  out.d_rejected = slope.by_rejected * per_rejected;
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
