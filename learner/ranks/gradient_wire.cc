#include "learner/ranks/gradient_wire.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/base/dtype.h"
#include "common/base/error.h"

namespace plumb::learner {
namespace {

constexpr float kMost = 127;

void WriteBlock(std::span<const float> numbers, std::byte* bytes) {
  float largest = 0;
  bool finite = true;
  for (const float x : numbers) {
    largest = std::max(largest, std::abs(x));
    finite = finite && std::isfinite(x);
  }
  const float scale = finite ? largest / kMost : std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes, &scale, sizeof scale);
  bytes += sizeof scale;
  // A scale of 0, or one so small that its reciprocal is infinite, is of numbers that are nothing.
  const float by = scale > 0 && std::isfinite(1 / scale) ? 1 / scale : 0;
  for (size_t i = 0; i < numbers.size(); ++i)
    bytes[i] = static_cast<std::byte>(static_cast<int8_t>(
        std::nearbyint(finite ? std::clamp(numbers[i] * by, -kMost, kMost) : 1.0f)));
}

void ReadBlock(const std::byte* bytes, std::span<float> numbers) {
  float scale = 0;
  std::memcpy(&scale, bytes, sizeof scale);
  bytes += sizeof scale;
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = scale * static_cast<float>(static_cast<int8_t>(bytes[i]));
}

}  // namespace

int64_t WireBytes(Wire wire, int64_t n) {
  switch (wire) {
    case Wire::kFloat32: return 4 * n;
    case Wire::kBFloat16: return 2 * n;
    case Wire::kInt8: return n + 4 * ((n + kWireBlock - 1) / kWireBlock);
  }
  return 0;
}

void WriteWire(Wire wire, std::span<const float> numbers, std::span<std::byte> bytes) {
  const auto n = static_cast<int64_t>(numbers.size());
  PLUMB_CHECK(static_cast<int64_t>(bytes.size()) == WireBytes(wire, n));
  if (wire == Wire::kFloat32) {
    if (n > 0) std::memcpy(bytes.data(), numbers.data(), bytes.size());
  } else if (wire == Wire::kBFloat16) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      const BFloat16 rounded = ToBFloat16(numbers[i]);
      std::memcpy(bytes.data() + 2 * i, &rounded, sizeof rounded);
    }
  } else {
    for (int64_t at = 0, to = 0; at < n; at += kWireBlock, to += kWireBlock + 4) {
      WriteBlock(numbers.subspan(static_cast<size_t>(at),
                                 static_cast<size_t>(std::min(kWireBlock, n - at))),
                 bytes.data() + to);
    }
  }
}

void ReadWire(Wire wire, std::span<const std::byte> bytes, std::span<float> numbers) {
  const auto n = static_cast<int64_t>(numbers.size());
  PLUMB_CHECK(static_cast<int64_t>(bytes.size()) == WireBytes(wire, n));
  if (wire == Wire::kFloat32) {
    if (n > 0) std::memcpy(numbers.data(), bytes.data(), bytes.size());
  } else if (wire == Wire::kBFloat16) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      BFloat16 rounded;
      std::memcpy(&rounded, bytes.data() + 2 * i, sizeof rounded);
      numbers[i] = ToFloat(rounded);
    }
  } else {
    for (int64_t at = 0, from = 0; at < n; at += kWireBlock, from += kWireBlock + 4) {
      ReadBlock(bytes.data() + from,
                numbers.subspan(static_cast<size_t>(at),
                                static_cast<size_t>(std::min(kWireBlock, n - at))));
    }
  }
}

}  // namespace plumb::learner
