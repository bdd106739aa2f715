// Which tokens of an update have a policy gradient.
//
// Purpose: two masks that need all tokens, or the policy as it is now.
//   SequenceMask    an answer of negative advantage that the policy has moved away from: left out
//                   where mean(sampled - logprob) passes the bound (DeepSeek-AI, "DeepSeek-V3.2",
//                   2025, "off-policy sequence masking")
//   EntropyBound    the entropy from which a token belongs to the share of highest entropy (Wang et
//                   al., "Beyond the 80/20 Rule", 2025)
// Templates over the scalar. Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {

// Zeroes the weights of tokens whose advantage is negative, where the answer has passed `bound` in
// nats a token. All spans [K]; `sampled`: log-probs of the policy that wrote the answer.
template <class S>
void SequenceMask(S bound, std::span<const S> advantage, std::span<const S> logprob,
                  std::span<const S> sampled, std::span<S> weight) {
  const size_t n = logprob.size();
  PLUMB_CHECK(n > 0 && advantage.size() == n && sampled.size() == n && weight.size() == n);
  S sum = 0;
  for (size_t k = 0; k < n; ++k) sum += sampled[k] - logprob[k];
  if (sum / static_cast<S>(n) <= bound) return;
  for (size_t k = 0; k < n; ++k) {
    if (advantage[k] < 0) weight[k] = 0;
  }
}

// The (1 - share) quantile, in a line between two neighbours; tokens of this entropy and above
// train. REQUIRES: at least one.
template <class S>
S EntropyBound(std::vector<S> entropies, double share) {
  PLUMB_CHECK(!entropies.empty());
  std::sort(entropies.begin(), entropies.end());
  const double place = (1 - share) * static_cast<double>(entropies.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, entropies.size() - 1);
  const auto rest = static_cast<S>(place - static_cast<double>(below));
  return entropies[below] + rest * (entropies[above] - entropies[below]);
}

}  // namespace plumb::learner
