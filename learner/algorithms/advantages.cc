#include "learner/algorithms/advantages.h"

#include <cmath>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

using configs::Advantage;
using configs::AlgorithmConfig;
using configs::RewardAggregation;
using configs::StdOver;

// Of what counts, NaN left out; the std is unbiased, 0 for fewer than two.
struct Spread {
  double mean = 0, std = 0;
  double first = 0;
  int64_t n = 0;
  bool equal = true;
};

template <class Each>
Spread SpreadOf(const Each& each) {
  Spread out;
  double sum = 0, squares = 0;
  each([&](double value) {
    if (std::isnan(value)) return;
    if (out.n++ == 0) out.first = value;
    out.equal = out.equal && value == out.first;
    sum += value;
  });
  if (out.n == 0) return out;
  out.mean = sum / static_cast<double>(out.n);
  each([&](double value) {
    if (!std::isnan(value)) squares += (value - out.mean) * (value - out.mean);
  });
  if (out.n > 1) out.std = std::sqrt(squares / static_cast<double>(out.n - 1));
  return out;
}

std::vector<GroupAdvantage> OverBatchStd(std::span<const GroupRewards> groups, double eps) {
  const Spread all = SpreadOf([&](const auto& see) {
    for (const GroupRewards& g : groups) {
      for (size_t i = 0; i < g.rewards.size(); ++i) {
        if (g.counts[i]) see(g.rewards[i]);
      }
    }
  });
  std::vector<GroupAdvantage> out;
  for (const GroupRewards& g : groups) {
    out.push_back(GroupAdvantages(g.rewards, g.counts, false, 0));
    for (double& a : out.back().advantage) a /= all.std + eps;
  }
  return out;
}

std::vector<GroupAdvantage> NormalizeThenSum(std::span<const GroupRewards> groups, double eps) {
  std::vector<GroupAdvantage> out;
  for (const GroupRewards& g : groups) {
    GroupAdvantage sums = GroupAdvantages(g.rewards, g.counts, false, 0);
    sums.advantage.assign(g.rewards.size(), std::nan(""));
    sums.equal = true;
    for (const auto& [name, part] : g.parts) {
      PLUMB_CHECK(part.values.size() == g.rewards.size());
      const Spread spread = SpreadOf([&](const auto& see) {
        for (size_t i = 0; i < part.values.size(); ++i) {
          if (g.counts[i]) see(part.values[i]);
        }
      });
      sums.equal = sums.equal && spread.equal;
      for (size_t i = 0; i < part.values.size(); ++i) {
        if (!g.counts[i] || std::isnan(part.values[i])) continue;
        // Rounding of the mean must not become a gradient.
        const double normal =
            spread.equal ? 0 : (part.values[i] - spread.mean) / (spread.std + eps);
        double& sum = sums.advantage[i];
        sum = (std::isnan(sum) ? 0 : sum) + part.weight * normal;
      }
    }
    out.push_back(std::move(sums));
  }
  const Spread all = SpreadOf([&](const auto& see) {
    for (const GroupAdvantage& g : out) {
      for (const double a : g.advantage) see(a);
    }
  });
  for (GroupAdvantage& g : out) {
    for (double& a : g.advantage) a = std::isnan(a) ? 0 : (a - all.mean) / (all.std + eps);
  }
  return out;
}

GroupAdvantage OfGroup(const AlgorithmConfig& o, const GroupRewards& g) {
  switch (o.advantage) {
    case Advantage::kGroup:
    case Advantage::kBatch:
      return GroupAdvantages(g.rewards, g.counts, o.advantage_std, o.advantage_eps);
    case Advantage::kGroupMeanBatchStd: return GroupAdvantages(g.rewards, g.counts, false, 0);
    case Advantage::kLeaveOneOut: return LeaveOneOutAdvantages(g.rewards, g.counts);
    case Advantage::kGreedy:
      return GreedyBaselineAdvantages(g.rewards, g.counts, g.rewards.size() - 1);
    case Advantage::kOptimal: return LengthWeightedAdvantages(g.rewards, g.lengths, g.counts);
    case Advantage::kPassK:
      return PassKAdvantages(g.rewards, g.counts, o.pass_k, o.advantage_std, o.advantage_eps);
  }
  return {};
}

}  // namespace

std::vector<GroupAdvantage> AdvantagesOf(const AlgorithmConfig& options,
                                         std::span<const GroupRewards> groups) {
  if (options.reward_aggregation == RewardAggregation::kNormalizeThenSum)
    return NormalizeThenSum(groups, options.advantage_eps);
  if (options.advantage == Advantage::kGroup && options.advantage_std &&
      options.std_over == StdOver::kBatch)
    return OverBatchStd(groups, options.advantage_eps);
  std::vector<GroupAdvantage> out;
  for (const GroupRewards& g : groups) out.push_back(OfGroup(options, g));
  return out;
}

}  // namespace plumb::learner
