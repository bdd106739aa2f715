// One element of NarrowGradients, for both of its implementations. Thread safety: pure functions,
// of host and device.
#pragma once

#include "kernels/update/moment_codes.h"

namespace plumb::kernels {

inline constexpr int kNarrowDraws = 8;  // elements that one draw of 128 bits serves
inline constexpr uint32_t kNarrowStream = 0x6EAD1E47u;

PLUMB_HOST_DEVICE inline Random4 NarrowDraw(uint64_t seed, int64_t place, uint32_t draw) {
  return RandomAt(seed, static_cast<uint64_t>(place) / kNarrowDraws, kNarrowStream, draw);
}

// `bits`: 16 random ones. Both signs of 0 count as nothing yet.
PLUMB_HOST_DEVICE inline BFloat16 NarrowSum(BFloat16 sum, float more, uint32_t bits) {
  const float x = ToFloat(sum) + more;
  return (sum.bits & 0x7FFFu) == 0 ? ToBFloat16(x) : RoundAtRandom(x, bits);
}

}  // namespace plumb::kernels
