#include "common/base/wilson_interval.h"

#include <algorithm>
#include <cmath>

namespace plumb {

std::pair<double, double> WilsonInterval(double share, double n) {
  constexpr double kZ = 1.959964;  // 97.5 % of the normal distribution
  if (n <= 0) return {0, 1};
  const double wide = kZ * kZ / n;
  const double centre = (share + wide / 2) / (1 + wide);
  const double half = kZ * std::sqrt(share * (1 - share) / n + wide / (4 * n)) / (1 + wide);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

}  // namespace plumb
