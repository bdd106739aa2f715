// The preference loss of a batch: several losses with weights, and those that need all pairs.
//
// Purpose: loss = sum_j weight_j mean over pairs of loss_j, over preference_loss.h. Besides:
//   aot            the r-th smallest chosen - rejected of the policy against the r-th smallest of
//                  the reference: z_r = beta (difference), softplus(-z) with label smoothing
//   aot_unpaired   the r-th smallest log-ratio of the chosen answers against the r-th smallest of
//                  the rejected ones; Melnyk et al., "Distributional Preference Alignment of LLMs
//                  via Optimal Transport", 2024
//   sft            the mean over all chosen tokens of the batch
//   each but aot and sft times PairLogprobs::weight
// A pair's value is such that the batch's loss is their mean. Templates over the scalar, checked in
// double against TRL. Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "configs/config.h"
#include "configs/pattern_number.h"
#include "learner/offline/preference_loss.h"

namespace plumb::learner {

using WeightedLoss = std::pair<PreferenceLossKind, double>;

// preference.losses, or preference.loss alone. REQUIRES: a valid recipe.
inline std::vector<WeightedLoss> LossesOf(const configs::PreferenceConfig& c) {
  if (c.losses.empty()) return {{c.loss, 1.0}};
  std::vector<WeightedLoss> out;
  for (const auto& [name, weight] : configs::ReadPatternNumbers(c.losses, "preference.losses")) {
    const auto kind = configs::FromName<PreferenceLossKind>(name);
    PLUMB_CHECK(kind.has_value());
    out.emplace_back(*kind, weight);
  }
  return out;
}
inline bool UsesReference(std::span<const WeightedLoss> losses) {
  return std::any_of(losses.begin(), losses.end(),
                     [](const WeightedLoss& l) { return UsesReference(l.first); });
}
inline bool ComparesBatch(std::span<const WeightedLoss> losses) {
  return std::any_of(losses.begin(), losses.end(),
                     [](const WeightedLoss& l) { return ComparesBatch(l.first); });
}

namespace preference_batch {

// Places of `values`, ascending; of equal ones the first.
template <class S>
std::vector<size_t> Ranks(const std::vector<S>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  return order;
}

template <class S>
std::vector<PairLoss<S>> OptimalTransport(std::span<const PairLogprobs<S>> pairs,
                                          const PreferenceLossOptions& options) {
  const bool paired = options.kind == PreferenceLossKind::kAot;
  const S beta = static_cast<S>(options.beta), smooth = static_cast<S>(options.label_smoothing);
  std::vector<S> upper, lower;
  for (const PairLogprobs<S>& p : pairs) {
    upper.push_back(p.chosen - (paired ? p.rejected : p.ref_chosen));
    lower.push_back(paired ? p.ref_chosen - p.ref_rejected : p.rejected - p.ref_rejected);
  }
  const std::vector<size_t> high = Ranks(upper), low = Ranks(lower);
  std::vector<PairLoss<S>> out(pairs.size());
  for (size_t r = 0; r < pairs.size(); ++r) {
    PairLoss<S>&of_high = out[high[r]], &of_low = out[low[r]];
    const S z = beta * (upper[high[r]] - lower[low[r]]);
    const S slope = beta * (smooth * Sigmoid(z) - (1 - smooth) * Sigmoid(-z));
    of_high.value += (1 - smooth) * Softplus(-z) + smooth * Softplus(z);
    of_high.d_chosen += slope;
    (paired ? of_high.d_rejected : of_high.d_ref_chosen) -= slope;
    (paired ? of_low.d_ref_chosen : of_low.d_rejected) -= slope;
    of_low.d_ref_rejected += slope;
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    out[i].reward_chosen = beta * (pairs[i].chosen - pairs[i].ref_chosen);
    out[i].reward_rejected = beta * (pairs[i].rejected - pairs[i].ref_rejected);
  }
  return out;
}

}  // namespace preference_batch

// One a pair; `options.kind` is not looked at. The rewards are those of the first loss. With a
// single pair, what ComparesBatch does not say is the pair's own part of its batch.
template <class S>
std::vector<PairLoss<S>> PreferenceLosses(std::span<const PairLogprobs<S>> pairs,
                                          std::span<const WeightedLoss> losses,
                                          PreferenceLossOptions options) {
  std::vector<PairLoss<S>> out(pairs.size());
  for (size_t l = 0; l < losses.size(); ++l) {
    options.kind = losses[l].first;
    const S weight = static_cast<S>(losses[l].second);
    std::vector<PairLoss<S>> of;
    if (ComparesBatch(options.kind)) of = preference_batch::OptimalTransport(pairs, options);
    else {
      for (const PairLogprobs<S>& p : pairs) of.push_back(PreferenceLoss(p, options));
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      const S of_pair = weight * pairs[i].weight;
      out[i].value += of_pair * of[i].value;
      out[i].d_chosen += of_pair * of[i].d_chosen;
      out[i].d_rejected += of_pair * of[i].d_rejected;
      out[i].d_ref_chosen += of_pair * of[i].d_ref_chosen;
      out[i].d_ref_rejected += of_pair * of[i].d_ref_rejected;
      if (l > 0) continue;
      out[i].reward_chosen = of[i].reward_chosen;
      out[i].reward_rejected = of[i].reward_rejected;
    }
  }
  return out;
}

// The weight of the scored token number `k` of one of two answers, where tokens behind the length
// of the shorter one count `alpha` (LD-DPO: Liu et al., "Length Desensitization in Direct
// Preference Optimization", 2024).
inline double LengthWeight(double alpha, size_t k, size_t shorter) {
  return k < shorter ? 1 : alpha;
}

// What an answer counts by under WPO: exp of the mean over its scored tokens of log p - log sum_v
// p_v^2, p the policy's distribution there (Zhou et al., "WPO: Enhancing RLHF with Weighted
// Preference Optimization", 2024, eq. 2, and its alignment by what is expected of a token that the
// policy draws). A pair has the product of its two answers', which has no gradient and no bound.
template <class S>
S WrittenWeight(std::span<const S> logprobs, std::span<const S> log_squares) {
  S sum = 0;
  for (size_t i = 0; i < logprobs.size(); ++i) sum += logprobs[i] - log_squares[i];
  return std::exp(sum / static_cast<S>(std::max<size_t>(1, logprobs.size())));
}

}  // namespace plumb::learner
