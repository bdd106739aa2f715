#include <algorithm>

#include "kernels/update/zero_ranges.h"

namespace plumb::kernels {

void ZeroRanges::Cpu(const Launch&) const {
  for (int64_t i = 0; i < count; ++i) std::fill_n(data + ranges[i].at, ranges[i].n, 0.0f);
}

}  // namespace plumb::kernels
