#include "learner/algorithms/returns.h"

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

}  // namespace plumb::learner
