// As what gradients travel between ranks: float32, bfloat16, or 8 bits with a scale a block.
//
//   kFloat32    4 n bytes, exact
//   kBFloat16   2 n bytes, rounded to nearest even
//   kInt8       n + 4 ceil(n / 256) bytes: of each block of 256 a float scale, the largest
//   magnitude
//               over 127, in front; then a byte a number
// Numbers that are not finite arrive as such (of kInt8: their whole block does), so that the guard
// of the update sees them.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace plumb::learner {

enum class Wire : uint8_t { kFloat32, kBFloat16, kInt8 };

inline constexpr int64_t kWireBlock = 256;

int64_t WireBytes(Wire wire, int64_t n);
// `bytes`: WireBytes of the numbers.
void WriteWire(Wire wire, std::span<const float> numbers, std::span<std::byte> bytes);
void ReadWire(Wire wire, std::span<const std::byte> bytes, std::span<float> numbers);

}  // namespace plumb::learner
