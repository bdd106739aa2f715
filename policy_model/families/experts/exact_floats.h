// Float32 numbers kept whole in a buffer of any type: each as the sum of three whose bits bfloat16
// has.
//
// Purpose: the balancing bias of experts decides between scores that may differ by less than
// bfloat16 tells apart, and other systems keep it in float32 in models of bfloat16
// (TensorEntry::exact). Layout: all first parts, then all second, then all third ones. Thread
// safety: pure functions. Errors: none; infinities and NaN stay what they are.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

#include "common/base/error.h"

namespace plumb::policy_model {

inline constexpr int64_t kExactParts = 3;  // of 8 significant bits each; a float has 24

inline void SplitExact(std::span<const float> values, std::span<float> parts) {
  PLUMB_CHECK(parts.size() == kExactParts * values.size());
  const auto top = [](float x) {  // its first 8 significant bits
    return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xFFFF0000u);
  };
  const size_t n = values.size();
  for (size_t i = 0; i < n; ++i) {
    const bool finite = std::isfinite(values[i]);
    const float first = finite ? top(values[i]) : values[i], rest = finite ? values[i] - first : 0;
    parts[i] = first;
    parts[n + i] = top(rest);
    parts[2 * n + i] = rest - top(rest);
  }
}

inline void JoinExact(std::span<const float> parts, std::span<float> values) {
  PLUMB_CHECK(parts.size() == kExactParts * values.size());
  const size_t n = values.size();
  for (size_t i = 0; i < n; ++i) values[i] = parts[i] + (parts[n + i] + parts[2 * n + i]);
}

}  // namespace plumb::policy_model
