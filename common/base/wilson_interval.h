// How certain a share of few is, also where all or none are in it and a standard error would be 0.
//
// Thread safety: a pure function.
#pragma once

#include <utility>

namespace plumb {

// Wilson's interval at 95 % of a share of n (E. B. Wilson, "Probable inference, the law of
// succession, and statistical inference", 1927).
std::pair<double, double> WilsonInterval(double share, double n);

}  // namespace plumb
