#include "common/base/hash/crc32c.h"

#include <array>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
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

uint32_t WithTables(const uint8_t* p, size_t size, uint32_t c) {
  for (; size >= 8; p += 8, size -= 8) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + 4, 4);
    low ^= c;
    c = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^ kTables[5][(low >> 16) & 0xFF] ^
        kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^ kTables[2][(high >> 8) & 0xFF] ^
        kTables[1][(high >> 16) & 0xFF] ^ kTables[0][high >> 24];
  }
  for (; size > 0; ++p, --size) c = (c >> 8) ^ kTables[0][(c ^ *p) & 0xFF];
  return c;
}

#if defined(__x86_64__)
// What a register becomes when `bytes` zero bytes follow. The register is linear over xor, so four
// tables hold it all.
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
    return tables_[0][c & 0xFF] ^ tables_[1][(c >> 8) & 0xFF] ^ tables_[2][(c >> 16) & 0xFF] ^
           tables_[3][c >> 24];
  }

 private:
  static constexpr uint32_t Times(const std::array<uint32_t, 32>& matrix, uint32_t v) {
    uint32_t sum = 0;
    for (size_t bit = 0; v != 0; ++bit, v >>= 1) sum ^= (v & 1) ? matrix[bit] : 0;
    return sum;
  }
  std::array<std::array<uint32_t, 256>, 4> tables_;
};
inline uint64_t Word(const uint8_t* at) {
  uint64_t v;
  std::memcpy(&v, at, 8);
  return v;
}

constexpr size_t kLong = 1024, kShort = 128;  // bytes a stream
constexpr ZeroBytes kAfterLong(kLong), kAfterShort(kShort);

// The instruction takes three cycles and one can begin each cycle: three thirds of a block are
// summed side by side, then joined as if each had followed the other.
template <size_t kBytes>
__attribute__((target("sse4.2"))) uint32_t ThreeStreams(const uint8_t*& p, size_t& size,
                                                        uint32_t crc, const ZeroBytes& after) {
  for (; size >= 3 * kBytes; p += 3 * kBytes, size -= 3 * kBytes) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kBytes; i += 8) {
      a = _mm_crc32_u64(a, Word(p + i));
      b = _mm_crc32_u64(b, Word(p + kBytes + i));
      c = _mm_crc32_u64(c, Word(p + 2 * kBytes + i));
    }
    crc = after(after(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^
          static_cast<uint32_t>(c);
  }
  return crc;
}

// `crc` behind bytes that are too few for more.
__attribute__((target("sse4.2"))) inline uint32_t OneStream(const uint8_t* p, size_t size,
                                                            uint32_t crc) {
  uint64_t c = crc;
  for (; size >= 8; p += 8, size -= 8) c = _mm_crc32_u64(c, Word(p));
  uint32_t tail = static_cast<uint32_t>(c);
  for (; size > 0; ++p, --size) tail = _mm_crc32_u8(tail, *p);
  return tail;
}

__attribute__((target("sse4.2"))) uint32_t WithStreams(const uint8_t* p, size_t size,
                                                       uint32_t crc) {
  crc = ThreeStreams<kLong>(p, size, crc, kAfterLong);
  crc = ThreeStreams<kShort>(p, size, crc, kAfterShort);
  return OneStream(p, size, crc);
}

// Folding (Gopal et al. 2009, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ"): 16
// bytes are a polynomial of degree below 128 whose first bit stands for x^127. Sums do not change
// when 16 bytes are replaced by their product with x^(8n), mod P, added to those n bytes behind; of
// that product each half is taken for itself, times a factor below P. The product of two halves as
// the instruction gives it has one x too many, so the factors have one less. The last 16 bytes that
// are left are summed like any others. With one pair at a time this is slower than three streams
// (15 against 26 GB/s on Zen 4), so it begins where vpclmulqdq multiplies two or four.
constexpr uint64_t FactorOf(
    size_t n) {  // x^(n - 1) mod P, bits in the order of the data, in the upper half
  uint32_t v = uint32_t{1} << 31;  // x^0
  for (size_t i = 1; i < n; ++i) v = (v & 1) ? (v >> 1) ^ kPolynomial : v >> 1;
  return uint64_t{v} << 32;
}
template <size_t kBytes>  // for the half in front and the other one
constexpr long long kFactors[2] = {static_cast<long long>(FactorOf(8 * kBytes + 64)),
                                   static_cast<long long>(FactorOf(8 * kBytes))};

__attribute__((target("pclmul,sse4.2"), always_inline)) inline __m128i Factors(
    const long long (&factors)[2]) {
  return _mm_set_epi64x(factors[1], factors[0]);
}
__attribute__((target("pclmul,sse4.2"), always_inline)) inline __m128i Fold(__m128i front,
                                                                            __m128i factors,
                                                                            __m128i next) {
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(front, factors, 0x00),
                                     _mm_clmulepi64_si128(front, factors, 0x11)),
                       next);
}
__attribute__((target("pclmul,sse4.2"), always_inline)) inline uint32_t SumOf(__m128i rest) {
  const uint64_t front = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(rest)));
  return static_cast<uint32_t>(
      _mm_crc32_u64(front, static_cast<uint64_t>(_mm_extract_epi64(rest, 1))));
}

__attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2"), always_inline)) inline __m256i Fold(
    __m256i front, __m256i factors, __m256i next) {
  return _mm256_xor_si256(_mm256_xor_si256(_mm256_clmulepi64_epi128(front, factors, 0x00),
                                           _mm256_clmulepi64_epi128(front, factors, 0x11)),
                          next);
}
__attribute__((target("avx512f,avx2,vpclmulqdq,pclmul,sse4.2"), always_inline)) inline __m512i Fold(
    __m512i front, __m512i factors, __m512i next) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(front, factors, 0x00),
                                   _mm512_clmulepi64_epi128(front, factors, 0x11), next,
                                   0x96);  // xor of all three
}

template <bool kCopy>
__attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2"), always_inline)) inline __m256i Take256(
    const uint8_t* p, uint8_t* to, size_t at) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + at));
  if constexpr (kCopy) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at), v);
  return v;
}
template <bool kCopy>
__attribute__((target("avx512f,avx2,vpclmulqdq,pclmul,sse4.2"), always_inline)) inline __m512i
Take512(const uint8_t* p, uint8_t* to, size_t at) {
  const __m512i v = _mm512_loadu_si512(p + at);
  if constexpr (kCopy) _mm512_storeu_si512(to + at, v);
  return v;
}

// Four registers in flight hide the latency of a product.
template <bool kCopy>
__attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2"))) uint32_t Folded256(const uint8_t* p,
                                                                            size_t size,
                                                                            uint8_t* to,
                                                                            uint32_t crc) {
  constexpr size_t kBlock = 128;
  size_t at = 0;
  if (size >= kBlock) {
    __m256i a = Take256<kCopy>(p, to, at), b = Take256<kCopy>(p, to, at + 32),
            c = Take256<kCopy>(p, to, at + 64), d = Take256<kCopy>(p, to, at + 96);
    a = _mm256_xor_si256(a, _mm256_zextsi128_si256(_mm_cvtsi32_si128(static_cast<int>(crc))));
    const __m256i by_block = _mm256_broadcastsi128_si256(Factors(kFactors<kBlock>));
    for (at = kBlock; size - at >= kBlock; at += kBlock) {
      a = Fold(a, by_block, Take256<kCopy>(p, to, at));
      b = Fold(b, by_block, Take256<kCopy>(p, to, at + 32));
      c = Fold(c, by_block, Take256<kCopy>(p, to, at + 64));
      d = Fold(d, by_block, Take256<kCopy>(p, to, at + 96));
    }
    const __m256i by_one = _mm256_broadcastsi128_si256(Factors(kFactors<32>));
    d = Fold(Fold(Fold(a, by_one, b), by_one, c), by_one, d);
    crc = SumOf(
        Fold(_mm256_castsi256_si128(d), Factors(kFactors<16>), _mm256_extracti128_si256(d, 1)));
    // of the rest, which is summed below: up to the end, though part of it is copied already
    if constexpr (kCopy) {
      for (size_t back = kBlock; back > 0; back -= 32) Take256<kCopy>(p, to, size - back);
    }
  } else if (kCopy && size > 0) {
    std::memcpy(to, p, size);
  }
  return OneStream(p + at, size - at, crc);
}

template <bool kCopy>
__attribute__((target("avx512f,avx2,vpclmulqdq,pclmul,sse4.2"))) uint32_t Folded512(
    const uint8_t* p, size_t size, uint8_t* to, uint32_t crc) {
  constexpr size_t kBlock = 256;
  size_t at = 0;
  if (size >= kBlock) {
    __m512i a = Take512<kCopy>(p, to, at), b = Take512<kCopy>(p, to, at + 64),
            c = Take512<kCopy>(p, to, at + 128), d = Take512<kCopy>(p, to, at + 192);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(crc))));
    const __m512i by_block = _mm512_set4_epi64(kFactors<kBlock>[1], kFactors<kBlock>[0],
                                               kFactors<kBlock>[1], kFactors<kBlock>[0]);
    for (at = kBlock; size - at >= kBlock; at += kBlock) {
      a = Fold(a, by_block, Take512<kCopy>(p, to, at));
      b = Fold(b, by_block, Take512<kCopy>(p, to, at + 64));
      c = Fold(c, by_block, Take512<kCopy>(p, to, at + 128));
      d = Fold(d, by_block, Take512<kCopy>(p, to, at + 192));
    }
    const __m512i by_one =
        _mm512_set4_epi64(kFactors<64>[1], kFactors<64>[0], kFactors<64>[1], kFactors<64>[0]);
    d = Fold(Fold(Fold(a, by_one, b), by_one, c), by_one, d);
    for (; size - at >= 64; at += 64) d = Fold(d, by_one, Take512<kCopy>(p, to, at));
    alignas(64) __m128i parts[4];
    _mm512_store_si512(parts, d);
    const __m128i by_16 = Factors(kFactors<16>);
    crc = SumOf(Fold(Fold(Fold(parts[0], by_16, parts[1]), by_16, parts[2]), by_16, parts[3]));
    // copies the rest, which is summed below, and what stands before it once more
    Take512<kCopy>(p, to, size - 64);
  } else if (kCopy && size > 0) {
    std::memcpy(to, p, size);
  }
  return OneStream(p + at, size - at, crc);
}
#endif

// As Crc32cWay::sum.
using Sum = uint32_t (*)(const uint8_t* p, size_t size, uint32_t crc);
template <Sum kSum>
uint32_t Plain(const void* from, size_t size, void* to, uint32_t seed) {
  if (to != nullptr && size > 0) std::memcpy(to, from, size);
  return ~kSum(static_cast<const uint8_t*>(to != nullptr ? to : from), size, ~seed);
}
using SumAndCopy = uint32_t (*)(const uint8_t* p, size_t size, uint8_t* to, uint32_t crc);
template <SumAndCopy kSum, SumAndCopy kCopy>
uint32_t Folding(const void* from, size_t size, void* to, uint32_t seed) {
  return ~(to != nullptr ? kCopy : kSum)(static_cast<const uint8_t*>(from), size,
                                         static_cast<uint8_t*>(to), ~seed);
}

}  // namespace

std::span<const Crc32cWay> Crc32cWays() {
  static const std::vector<Crc32cWay> ways = [] {
    std::vector<Crc32cWay> found = {{"tables", Plain<WithTables>}};
#if defined(__x86_64__)
    const bool sse = __builtin_cpu_supports("sse4.2");
    const bool folds =
        sse && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("vpclmulqdq");
    if (sse) found.push_back({"three streams", Plain<WithStreams>});
    if (folds && __builtin_cpu_supports("avx2"))
      found.push_back({"folding, 256 bits", Folding<Folded256<false>, Folded256<true>>});
    if (folds && __builtin_cpu_supports("avx512f"))
      found.push_back({"folding, 512 bits", Folding<Folded512<false>, Folded512<true>>});
#endif
    return found;
  }();
  return ways;
}

namespace {
const Crc32cWay& Fastest() {
  static const Crc32cWay way = Crc32cWays().back();
  return way;
}
}  // namespace

uint32_t Crc32c(const void* data, size_t size, uint32_t seed) {
  return Fastest().sum(data, size, nullptr, seed);
}

uint32_t Crc32cCopy(const void* from, size_t size, void* to, uint32_t seed) {
  return Fastest().sum(from, size, to, seed);
}

}  // namespace plumb
