// SHA-256 (FIPS 180-4), streaming: checkpoint manifests, summaries, provenance of code.
//
// Uses the processor's SHA instructions where it has them (about 1.5-2 GB/s), else plain C++ (about 0.3 GB/s).
// Thread safety: one thread an object.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

class Sha256 {
 public:
  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text) { Update(std::as_bytes(std::span(text.data(), text.size()))); }
  // Of everything so far; ends the stream (Update afterwards aborts).
  std::array<uint8_t, 32> Finish();
  std::string HexDigest();  // 64 lower-case digits

 private:
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> block_{};  // the first total_ % 64 bytes are filled
  uint64_t total_ = 0;               // bytes so far
  bool finished_ = false;
};

std::string Sha256Hex(std::string_view text);

// The processor's instructions are left out: for comparing the two.
void UsePortableSha256ForTest(bool portable);

}  // namespace plumb
