// Tokens that stand out by the covariance of their advantage and their log-prob: they are what
// lowers the entropy of a policy.
//
// Purpose: which tokens of an update the objectives clip_cov and kl_cov treat apart. With cov_k =
// (A_k - mean A) (log p_k - mean log p) over all scored tokens of an update:
//   ClipCovTokens   at random, of those with low < cov < high that PPO's clip does not cut
//   KlCovTokens     those of the highest cov
// as many as share * tokens, one at least. Cui et al., "The Entropy Mechanism of Reinforcement
// Learning for Reasoning Language Models", 2025. Templates over the scalar. Thread safety: pure
// functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/algorithms/policy_loss.h"

namespace plumb::learner {

template <class S>
std::vector<S> Covariances(std::span<const S> advantage, std::span<const S> logprob) {
  PLUMB_CHECK(!advantage.empty() && advantage.size() == logprob.size());
  const auto mean = [](std::span<const S> values) {
    return std::accumulate(values.begin(), values.end(), S(0)) / static_cast<S>(values.size());
  };
  const S mean_advantage = mean(advantage), mean_logprob = mean(logprob);
  std::vector<S> out(advantage.size());
  for (size_t k = 0; k < out.size(); ++k)
    out[k] = (advantage[k] - mean_advantage) * (logprob[k] - mean_logprob);
  return out;
}

inline size_t PickedCount(double share, size_t tokens) {
  return std::max<size_t>(1, static_cast<size_t>(share * static_cast<double>(tokens)));
}

// 1: picked. All spans [tokens of the update], at least one.
template <class S>
std::vector<uint8_t> ClipCovTokens(std::span<const S> advantage, std::span<const S> logprob,
                                   std::span<const S> old_logprob, const ClipOptions& clip,
                                   double share, S low, S high, RandomStream random) {
  PLUMB_CHECK(old_logprob.size() == logprob.size());
  const std::vector<S> cov = Covariances(advantage, logprob);
  std::vector<size_t> candidates;
  for (size_t k = 0; k < cov.size(); ++k) {
    const bool cut = ClippedSurrogate<S>(logprob[k], old_logprob[k], advantage[k],
                                         {.low = clip.low, .high = clip.high})
                         .clipped;
    if (!cut && cov[k] > low && cov[k] < high) candidates.push_back(k);
  }
  std::vector<uint8_t> picked(cov.size(), 0);
  const size_t count = std::min(PickedCount(share, cov.size()), candidates.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t rest = candidates.size() - i;
    std::swap(candidates[i], candidates[i + random.NextBelow(static_cast<uint32_t>(rest))]);
    picked[candidates[i]] = 1;
  }
  return picked;
}

template <class S>
std::vector<uint8_t> KlCovTokens(std::span<const S> advantage, std::span<const S> logprob,
                                 double share) {
  const std::vector<S> cov = Covariances(advantage, logprob);
  std::vector<size_t> order(cov.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t count = std::min(PickedCount(share, cov.size()), order.size());
  // Of equal ones the first.
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](size_t a, size_t b) { return cov[a] != cov[b] ? cov[a] > cov[b] : a < b; });
  std::vector<uint8_t> picked(cov.size(), 0);
  for (size_t i = 0; i < count; ++i) picked[order[i]] = 1;
  return picked;
}

}  // namespace plumb::learner
