// CRC-32C (Castagnoli): guards stored values, messages and TensorBoard records against flipped
// bits, not against malice. Uses carry-less multiplication where the processor has it for wide
// registers (some 55 GB/s with AVX-512, 29 with AVX2), else SSE4.2 (25 GB/s), else tables. Thread
// safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace plumb {

// Of `size` bytes; `seed` is the sum of what came before, so that Crc32c(ab) == Crc32c(b,
// Crc32c(a)).
uint32_t Crc32c(const void* data, size_t size, uint32_t seed = 0);
inline uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed = 0) {
  return Crc32c(bytes.data(), bytes.size(), seed);
}
inline uint32_t Crc32c(std::string_view text, uint32_t seed = 0) {
  return Crc32c(text.data(), text.size(), seed);
}

// The same of bytes that are copied to `to` in the same pass; the two places must not overlap.
uint32_t Crc32cCopy(const void* from, size_t size, void* to, uint32_t seed = 0);

// A way to compute it; copies when `to` is not null.
struct Crc32cWay {
  const char* name;
  uint32_t (*sum)(const void* from, size_t size, void* to, uint32_t seed);
};
// Those of this processor, for tests and benchmarks: first the tables, which every processor has,
// last what the functions above use.
std::span<const Crc32cWay> Crc32cWays();

}  // namespace plumb
