// From rewards to advantages.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace plumb::learner {

struct GroupAdvantage {
  std::vector<double> advantage;  // [G], 0 for members that do not count
  double mean = 0;
  double std = 0;     // unbiased (n - 1), 0 for fewer than two members
  bool equal = true;  // all counted rewards are the same: no gradient
};

// A_i = r_i - mean, divided by (std + eps) when `divide_by_std` (Shao et al., "DeepSeekMath", 2024;
// without the division: Liu et al., "Understanding R1-Zero-Like Training", 2025). Members with
// counts[i] == 0 are left out of everything.
GroupAdvantage GroupAdvantages(std::span<const double> rewards,
                               std::span<const unsigned char> counts, bool divide_by_std,
                               double eps);

// A_i = r_i - mean of the others' rewards (Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline
// for Free!", 2019): unbiased, where the group's own mean is not. A member alone gets 0. `mean`,
// `std` and `equal` as above.
GroupAdvantage LeaveOneOutAdvantages(std::span<const double> rewards,
                                     std::span<const unsigned char> counts);

// A_i = r_i - sum_j l_j r_j / sum_j l_j over the counted members and their lengths: the baseline of
// the least variance where a token's gradient has the same size everywhere (Hao et al., "On-Policy
// RL with Optimal Reward Baseline", 2025).
GroupAdvantage LengthWeightedAdvantages(std::span<const double> rewards,
                                        std::span<const int64_t> lengths,
                                        std::span<const unsigned char> counts);

// A_i = E[max of k members with i - max of the same without it], over all choices of k - 1 others:
// what a member adds to the best of k (Tang et al., "Optimizing Language Models for Inference Time
// Objectives using Reinforcement Learning", 2025, whose k is the whole group). Divided by (std +
// eps) when `divide_by_std`; of fewer than k members all are taken.
GroupAdvantage PassKAdvantages(std::span<const double> rewards,
                               std::span<const unsigned char> counts, int64_t k, bool divide_by_std,
                               double eps);

// Against the reward of the group's own greedy answer (Li et al., "ReMax", 2023), which does not
// count itself. Without it (`counts` 0) nothing counts.
GroupAdvantage GreedyBaselineAdvantages(std::span<const double> rewards,
                                        std::span<const unsigned char> counts, size_t greedy);

}  // namespace plumb::learner
