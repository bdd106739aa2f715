#include "common/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace plumb {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // Castagnoli, bits reversed

// tables[k][b]: what byte b contributes when k more bytes follow within the same 8.
constexpr std::array<std::array<uint32_t, 256>, 8> MakeTables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ kPolynomial : c >> 1;
    tables[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t b = 0; b < 256; ++b) {
      const uint32_t before = tables[k - 1][b];
      tables[k][b] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}
constexpr auto kTables = MakeTables();

#if defined(__x86_64__)
// What a register becomes when `bytes` zero bytes follow. The register is linear over xor, so four tables hold it all.
class ZeroBytes {
 public:
  constexpr explicit ZeroBytes(size_t bytes) : tables_{} {  // REQUIRES: a power of two
    std::array<uint32_t, 32> matrix{};                      // image of each bit
    for (size_t bit = 0; bit < 32; ++bit) {
      const uint32_t c = uint32_t{1} << bit;
      matrix[bit] = (c >> 8) ^ kTables[0][c & 0xFF];
    }
    for (; bytes > 1; bytes /= 2) {
      std::array<uint32_t, 32> twice{};
      for (size_t bit = 0; bit < 32; ++bit) twice[bit] = Times(matrix, matrix[bit]);
      matrix = twice;
    }
    for (size_t k = 0; k < 4; ++k) {
      for (uint32_t b = 0; b < 256; ++b) tables_[k][b] = Times(matrix, b << (8 * k));
    }
  }
  uint32_t operator()(uint32_t c) const {
    return tables_[0][c & 0xFF] ^ tables_[1][(c >> 8) & 0xFF] ^ tables_[2][(c >> 16) & 0xFF] ^ tables_[3][c >> 24];
  }

 private:
  static constexpr uint32_t Times(const std::array<uint32_t, 32>& matrix, uint32_t v) {
    uint32_t sum = 0;
    for (size_t bit = 0; v != 0; ++bit, v >>= 1) sum ^= (v & 1) ? matrix[bit] : 0;
    return sum;
  }
  std::array<std::array<uint32_t, 256>, 4> tables_;
};
constexpr size_t kLong = 1024, kShort = 128;  // bytes a stream
constexpr ZeroBytes kAfterLong(kLong), kAfterShort(kShort);

// The instruction takes three cycles and one can begin each cycle: three thirds of a block are summed side by side, then
// joined as if each had followed the other.
template <size_t kBytes>
__attribute__((target("sse4.2"))) uint32_t ThreeStreams(const uint8_t*& p, size_t& size, uint32_t crc, const ZeroBytes& after) {
  const auto word = [](const uint8_t* at) {
    uint64_t v;
    std::memcpy(&v, at, 8);
    return v;
  };
  for (; size >= 3 * kBytes; p += 3 * kBytes, size -= 3 * kBytes) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kBytes; i += 8) {
      a = _mm_crc32_u64(a, word(p + i));
      b = _mm_crc32_u64(b, word(p + kBytes + i));
      c = _mm_crc32_u64(c, word(p + 2 * kBytes + i));
    }
    crc = after(after(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^ static_cast<uint32_t>(c);
  }
  return crc;
}

__attribute__((target("sse4.2"))) uint32_t Crc32cSse(const uint8_t* p, size_t size, uint32_t crc) {
  crc = ThreeStreams<kLong>(p, size, crc, kAfterLong);
  crc = ThreeStreams<kShort>(p, size, crc, kAfterShort);
  uint64_t c = crc;
  for (; size >= 8; p += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    c = _mm_crc32_u64(c, word);
  }
  uint32_t tail = static_cast<uint32_t>(c);
  for (; size > 0; ++p, --size) tail = _mm_crc32_u8(tail, *p);
  return tail;
}
#endif

}  // namespace

uint32_t Crc32cPortable(const void* data, size_t size, uint32_t seed) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  uint32_t c = ~seed;
  for (; size >= 8; p += 8, size -= 8) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + 4, 4);
    low ^= c;
    c = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^ kTables[5][(low >> 16) & 0xFF] ^ kTables[4][low >> 24] ^
        kTables[3][high & 0xFF] ^ kTables[2][(high >> 8) & 0xFF] ^ kTables[1][(high >> 16) & 0xFF] ^ kTables[0][high >> 24];
  }
  for (; size > 0; ++p, --size) c = (c >> 8) ^ kTables[0][(c ^ *p) & 0xFF];
  return ~c;
}

uint32_t Crc32c(const void* data, size_t size, uint32_t seed) {
#if defined(__x86_64__)
  static const bool has_sse = __builtin_cpu_supports("sse4.2");
  if (has_sse) return ~Crc32cSse(static_cast<const uint8_t*>(data), size, ~seed);
#endif
  return Crc32cPortable(data, size, seed);
}

}  // namespace plumb
