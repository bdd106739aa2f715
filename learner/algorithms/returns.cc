#include "learner/algorithms/returns.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"

namespace plumb::learner {

GroupAdvantage GroupAdvantages(std::span<const double> rewards,
                               std::span<const unsigned char> counts, bool divide_by_std,
                               double eps) {
  PLUMB_CHECK(rewards.size() == counts.size());
  GroupAdvantage out;
  out.advantage.assign(rewards.size(), 0.0);
  double sum = 0, first = 0;
  int n = 0;
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (!counts[i]) continue;
    if (n == 0) first = rewards[i];
    out.equal = out.equal && rewards[i] == first;
    sum += rewards[i];
    ++n;
  }
  if (n == 0) return out;
  out.mean = sum / n;
  double squares = 0;
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (counts[i]) squares += (rewards[i] - out.mean) * (rewards[i] - out.mean);
  }
  out.std = n > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
  if (out.equal) return out;  // rounding of the mean must not become a gradient
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (!counts[i]) continue;
    out.advantage[i] = rewards[i] - out.mean;
    if (divide_by_std) out.advantage[i] /= out.std + eps;
  }
  return out;
}

GroupAdvantage LeaveOneOutAdvantages(std::span<const double> rewards,
                                     std::span<const unsigned char> counts) {
  GroupAdvantage out = GroupAdvantages(rewards, counts, false, 0);
  double n = 0;
  for (const unsigned char counted : counts) n += counted != 0;
  // r - (sum - r) / (n - 1) = (r - mean) n / (n - 1)
  for (double& a : out.advantage) a *= n > 1 ? n / (n - 1) : 0;
  return out;
}

GroupAdvantage LengthWeightedAdvantages(std::span<const double> rewards,
                                        std::span<const int64_t> lengths,
                                        std::span<const unsigned char> counts) {
  PLUMB_CHECK(lengths.size() == rewards.size());
  GroupAdvantage out = GroupAdvantages(rewards, counts, false, 0);
  if (out.equal) return out;
  double sum = 0, tokens = 0;
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (!counts[i]) continue;
    sum += static_cast<double>(lengths[i]) * rewards[i];
    tokens += static_cast<double>(lengths[i]);
  }
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (counts[i]) out.advantage[i] = rewards[i] - (tokens > 0 ? sum / tokens : out.mean);
  }
  return out;
}

GroupAdvantage PassKAdvantages(std::span<const double> rewards,
                               std::span<const unsigned char> counts, int64_t k, bool divide_by_std,
                               double eps) {
  GroupAdvantage out = GroupAdvantages(rewards, counts, false, 0);
  std::fill(out.advantage.begin(), out.advantage.end(), 0.0);
  if (out.equal) return out;
  std::vector<size_t> order;  // ascending
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (counts[i]) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return rewards[a] != rewards[b] ? rewards[a] < rewards[b] : a < b;
  });
  const size_t n = order.size(), others = std::min(n, static_cast<size_t>(k)) - 1;
  // share[m]: of all choices of `others` of the n - 1 other members, those whose best is the one of
  // rank m: C(m, others - 1) / C(n - 1, others).
  std::vector<double> share(n - 1, 0.0);
  double best = static_cast<double>(others) / static_cast<double>(n - 1);
  for (size_t m = n - 1; m-- > 0;) {
    share[m] = best;
    if (m + 1 <= others) break;  // fewer than others - 1 lie below the next one
    best *= static_cast<double>(m + 1 - others) / static_cast<double>(m);
  }
  for (size_t at = 1; at < n; ++at) {
    double sum = 0;
    for (size_t m = 0; m < at; ++m) sum += share[m] * (rewards[order[at]] - rewards[order[m]]);
    out.advantage[order[at]] = divide_by_std ? sum / (out.std + eps) : sum;
  }
  return out;
}

GroupAdvantage GreedyBaselineAdvantages(std::span<const double> rewards,
                                        std::span<const unsigned char> counts, size_t greedy) {
  PLUMB_CHECK(greedy < rewards.size());
  GroupAdvantage out = GroupAdvantages(rewards, counts, false, 0);
  std::fill(out.advantage.begin(), out.advantage.end(), 0.0);
  if (!counts[greedy] || out.equal) return out;
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (counts[i]) out.advantage[i] = rewards[i] - rewards[greedy];
  }
  return out;
}

}  // namespace plumb::learner
