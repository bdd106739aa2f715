// CRC-32C (Castagnoli), as stored values, messages and TensorBoard records use it.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace plumb {

// Extends `crc` (0 to start) over `bytes`.
uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);
inline uint32_t Crc32c(std::string_view text, uint32_t crc = 0) {
  return Crc32c(std::as_bytes(std::span(text.data(), text.size())), crc);
}

// The mask of TFRecord: a CRC that is stored beside data must not look like one of it.
inline uint32_t MaskCrc32c(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

}  // namespace plumb
