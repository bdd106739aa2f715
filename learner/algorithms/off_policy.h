// Weights of tokens that another policy sampled than the one the ratio is taken against.
//
// Purpose: the proximal policy (the learner's weights when the batch arrived) and the behaviour
// policy (whoever sampled) differ by numerics, or by versions when generation runs ahead. The
// clipped ratio is taken against the proximal policy, and each token is weighted by proximal /
// behaviour: the decoupled objective (Hilton et al., "Batch size-invariance for policy
// optimization", 2022, eq. 5). Unbounded weights explode, so they are cut or dropped:
//   kTokenTruncate     min(w_k, cap)                 TIS: Yao et al., 2025
//   kTokenMask         w_k inside [floor, cap], else 0
//                      IcePop: Ling team, "Every Step Evolves", 2025 (0.5, 5)
//   kSequenceTruncate  min(w, cap), w = prod_k w_k, for every token of the answer
//   kSequenceMask      w inside [floor, cap], else 0: the whole answer is left out
//   kGeometricMask     1 where the geometric mean of the w_k is inside [floor, cap], else 0
//   kKlMask            1 where the mean of w_k - 1 - log w_k (k3) is at most cap, else 0
//                      the last two as verl 0.9.1's seq_mean_k1 and seq_mean_k3
// Templates over the scalar. Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include "common/base/error.h"
#include "configs/choices.h"

namespace plumb::learner {

using configs::OffPolicy;

template <class S>
struct OffPolicyOptions {
  OffPolicy mode = OffPolicy::kTokenTruncate;
  S floor = 0;
  S cap = 2;
};

// All spans [K]; `weight` is written. Log-ratios are clamped to +-20 before exp.
template <class S>
void OffPolicyWeights(const OffPolicyOptions<S>& options, std::span<const S> proximal,
                      std::span<const S> behaviour, std::span<S> weight) {
  PLUMB_CHECK(proximal.size() == weight.size() && behaviour.size() == weight.size());
  const auto bounded = [&](S log_ratio) {
    const S w = std::exp(std::clamp(log_ratio, S(-20), S(20)));
    const bool mask =
        options.mode == OffPolicy::kTokenMask || options.mode == OffPolicy::kSequenceMask;
    if (mask) return w >= options.floor && w <= options.cap ? w : S(0);
    return std::min(w, options.cap);
  };
  switch (options.mode) {
    case OffPolicy::kOff: std::fill(weight.begin(), weight.end(), S(1)); return;
    case OffPolicy::kTokenTruncate:
    case OffPolicy::kTokenMask:
      for (size_t k = 0; k < weight.size(); ++k) weight[k] = bounded(proximal[k] - behaviour[k]);
      return;
    case OffPolicy::kSequenceTruncate:
    case OffPolicy::kSequenceMask: {
      S sum = 0;
      for (size_t k = 0; k < weight.size(); ++k) sum += proximal[k] - behaviour[k];
      std::fill(weight.begin(), weight.end(), bounded(sum));
      return;
    }
    case OffPolicy::kGeometricMask:
    case OffPolicy::kKlMask: {
      if (weight.empty()) return;
      S sum = 0, k3 = 0;
      for (size_t k = 0; k < weight.size(); ++k) {
        const S d = std::clamp(proximal[k] - behaviour[k], S(-20), S(20));
        sum += d;
        k3 += std::exp(d) - 1 - d;
      }
      const auto n = static_cast<S>(weight.size());
      const S mean = std::exp(sum / n);
      const bool keeps = options.mode == OffPolicy::kKlMask
                             ? k3 / n <= options.cap
                             : mean >= options.floor && mean <= options.cap;
      std::fill(weight.begin(), weight.end(), keeps ? S(1) : S(0));
      return;
    }
  }
}

}  // namespace plumb::learner
