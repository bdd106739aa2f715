// From rewards to advantages.
//
// Thread safety: pure functions.
#pragma once

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

}  // namespace plumb::learner
