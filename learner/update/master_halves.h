// A float32 master beside the bfloat16 parameter that it rounds to: its lower 16 bits say the rest.
//
// The parameter is the upper half of the master, or that plus one where the lower half rounded it
// up. Which of the two, the lower half says by itself, unless it is 0x8000, the middle: there the
// even neighbour was taken, from above or from below. Such a place that was rounded down is named
// (about one in 130,000).
// Thread safety: pure functions. Exact: Join(Split(x)) has the bits of x.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/dtype.h"

namespace plumb::learner {

inline constexpr uint16_t kMiddle = 0x8000;

// `low` gets the lower halves, `ties` the places (counted from `first`) in the middle that were
// rounded down. False: some parameter is not its master rounded, so that the halves do not say it.
// REQUIRES: equal sizes.
bool SplitMasters(std::span<const float> masters, std::span<const BFloat16> rounded, int64_t first,
                  std::span<uint16_t> low, std::vector<int64_t>& ties);

// The other way. `ties`: ascending. False: one of them is no place in the middle.
bool JoinMasters(std::span<const BFloat16> rounded, std::span<const uint16_t> low,
                 std::span<const int64_t> ties, std::span<float> masters);

}  // namespace plumb::learner
