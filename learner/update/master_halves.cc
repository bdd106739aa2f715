#include "learner/update/master_halves.h"

#include <bit>
#include <cstddef>

#include "common/base/error.h"

namespace plumb::learner {

bool SplitMasters(std::span<const float> masters, std::span<const BFloat16> rounded, int64_t first,
                  std::span<uint16_t> low, std::vector<int64_t>& ties) {
  PLUMB_CHECK(masters.size() == rounded.size() && masters.size() == low.size());
  bool exact = true;
  for (size_t i = 0; i < masters.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(masters[i]);
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;  // rounding makes another one of it
    exact &= !nan && ToBFloat16(masters[i]).bits == rounded[i].bits;
    low[i] = static_cast<uint16_t>(bits);
    if (low[i] == kMiddle && (bits >> 16) == rounded[i].bits)
      ties.push_back(first + static_cast<int64_t>(i));
  }
  return exact;
}

bool JoinMasters(std::span<const BFloat16> rounded, std::span<const uint16_t> low,
                 std::span<const int64_t> ties, std::span<float> masters) {
  PLUMB_CHECK(masters.size() == rounded.size() && masters.size() == low.size());
  size_t next = 0;
  for (size_t i = 0; i < masters.size(); ++i) {
    const bool named = next < ties.size() && ties[next] == static_cast<int64_t>(i);
    if (named && low[i] != kMiddle) return false;
    next += named;
    const bool up = low[i] > kMiddle || (low[i] == kMiddle && !named);
    const uint32_t upper = static_cast<uint32_t>(rounded[i].bits) - (up ? 1u : 0u);
    masters[i] = std::bit_cast<float>(upper << 16 | low[i]);
  }
  return next == ties.size();
}

}  // namespace plumb::learner
