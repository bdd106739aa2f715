// From per-token rewards and values to advantages and returns; whitening over a batch; explained
// variance.
//
// Purpose: templates over the scalar, so that the same code is checked in double against
// independent numbers and used by learner/algorithms/ppo. Tokens here are the scored tokens of one
// answer, in order; values[t] is V of the state before token t, and the state after the last token
// has value 0 (an answer is one episode).
// Thread safety: pure functions.
// Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
// Estimation", 2016, eq. 16.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/error.h"

namespace plumb::learner {

// A_t = sum_k (gamma lam)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t; R_t = A_t + V_t. All
// [T]. O(T).
template <class S>
void Gae(std::span<const S> rewards, std::span<const S> values, S gamma, S lam,
         std::span<S> advantages, std::span<S> returns) {
  const size_t n = rewards.size();
  PLUMB_CHECK(values.size() == n && advantages.size() == n && returns.size() == n);
  S next_value = 0, next_advantage = 0;
  for (size_t t = n; t-- > 0;) {
    const S delta = rewards[t] + gamma * next_value - values[t];
    next_advantage = delta + gamma * lam * next_advantage;
    advantages[t] = next_advantage;
    returns[t] = next_advantage + values[t];
    next_value = values[t];
  }
}

template <class S>
struct Moments {
  int64_t count = 0;
  S mean = 0;
  S variance = 0;  // unbiased (n - 1); 0 for fewer than two
};

// Over the concatenation of ragged rows; two passes.
template <class S, class Rows>
Moments<S> MomentsOf(const Rows& rows) {
  Moments<S> out;
  S sum = 0;
  for (const auto& row : rows) {
    for (const S x : row) sum += x;
    out.count += static_cast<int64_t>(row.size());
  }
  if (out.count == 0) return out;
  out.mean = sum / static_cast<S>(out.count);
  S squares = 0;
  for (const auto& row : rows) {
    for (const S x : row) squares += (x - out.mean) * (x - out.mean);
  }
  if (out.count > 1) out.variance = squares / static_cast<S>(out.count - 1);
  return out;
}

// x <- (x - mean) / sqrt(variance + 1e-8) over all rows together: only scored tokens are in the
// rows, so this is the masked whitening of padded systems. Returns the moments before.
template <class S, class Rows>
Moments<S> Whiten(Rows& rows) {
  const Moments<S> moments = MomentsOf<S>(rows);
  const S scale = 1 / std::sqrt(moments.variance + S(1e-8));
  for (auto& row : rows) {
    for (S& x : row) x = (x - moments.mean) * scale;
  }
  return moments;
}

// 1 - Var(returns - values) / Var(returns); 1: the values say everything, 0: as good as a constant,
// below: worse. 0 where the returns do not vary. `returns` and `values` are ragged rows of equal
// lengths.
template <class S, class Rows>
S ExplainedVariance(const Rows& returns, const Rows& values) {
  const S total = MomentsOf<S>(returns).variance;
  if (!(total > 0)) return 0;
  Rows rest = returns;
  for (size_t i = 0; i < rest.size(); ++i) {
    PLUMB_CHECK(rest[i].size() == values[i].size());
    for (size_t t = 0; t < rest[i].size(); ++t) rest[i][t] -= values[i][t];
  }
  return 1 - MomentsOf<S>(rest).variance / total;
}

}  // namespace plumb::learner
