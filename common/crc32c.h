// CRC-32C (Castagnoli): guards stored values, messages and TensorBoard records against flipped bits, not against malice.
// Uses SSE4.2 where the processor has it (some 20 GB/s), else tables. Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace plumb {

// Of `size` bytes; `seed` is the sum of what came before, so that Crc32c(ab) == Crc32c(b, Crc32c(a)).
uint32_t Crc32c(const void* data, size_t size, uint32_t seed = 0);
inline uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed = 0) {
  return Crc32c(bytes.data(), bytes.size(), seed);
}
inline uint32_t Crc32c(std::string_view text, uint32_t seed = 0) { return Crc32c(text.data(), text.size(), seed); }

// The table version, for comparing the two.
uint32_t Crc32cPortable(const void* data, size_t size, uint32_t seed = 0);

}  // namespace plumb
