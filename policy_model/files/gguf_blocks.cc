// Element types of GGUF files: size of their blocks and their values as floats.
//
// A block of the plain types is 32 elements under one scale (and minimum); one of the K types is
// 256 elements in groups of 16 or 32, whose scales are small integers under a scale of the block.
#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/dtype.h"
#include "common/base/error.h"
#include "policy_model/files/gguf_reader.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kBlock = 32;   // elements that share a scale
constexpr int64_t kSuper = 256;  // elements of a block of the K types

float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = h >> 10 & 0x1F, mantissa = h & 0x3FF;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in a float
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <class T>
T Load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

int Byte(const std::byte* p, int64_t i) { return std::to_integer<int>(p[i]); }
float Half(const std::byte* p) { return HalfToFloat(Load<uint16_t>(p)); }
float Int8(const std::byte* p, int64_t i) { return static_cast<float>(Load<int8_t>(p + i)); }

// Low halves of 16 bytes are elements 0..15, high halves 16..31.
int Nibble(const std::byte* quants, int64_t i) {
  return i < kBlock / 2 ? Byte(quants, i) & 15 : Byte(quants, i - kBlock / 2) >> 4;
}

void Q8_0(const std::byte* p, float* to) {
  const float scale = Half(p);
  for (int64_t i = 0; i < kBlock; ++i) to[i] = scale * Int8(p + 2, i);
}

void Q4_0(const std::byte* p, float* to) {
  const float scale = Half(p);
  for (int64_t i = 0; i < kBlock; ++i) to[i] = scale * static_cast<float>(Nibble(p + 2, i) - 8);
}

void Q4_1(const std::byte* p, float* to) {
  const float scale = Half(p), minimum = Half(p + 2);
  for (int64_t i = 0; i < kBlock; ++i)
    to[i] = scale * static_cast<float>(Nibble(p + 4, i)) + minimum;
}

// The fifth bits of all elements stand together before the nibbles.
void Q5_0(const std::byte* p, float* to) {
  const float scale = Half(p);
  const auto high = Load<uint32_t>(p + 2);
  for (int64_t i = 0; i < kBlock; ++i) {
    const int q = Nibble(p + 6, i) | static_cast<int>(high >> i & 1) << 4;
    to[i] = scale * static_cast<float>(q - 16);
  }
}

void Q5_1(const std::byte* p, float* to) {
  const float scale = Half(p), minimum = Half(p + 2);
  const auto high = Load<uint32_t>(p + 4);
  for (int64_t i = 0; i < kBlock; ++i) {
    const int q = Nibble(p + 8, i) | static_cast<int>(high >> i & 1) << 4;
    to[i] = scale * static_cast<float>(q) + minimum;
  }
}

// Four bits choose among these.
constexpr std::array<int8_t, 16> kNonLinear = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

void Iq4Nl(const std::byte* p, float* to) {
  const float scale = Half(p);
  for (int64_t i = 0; i < kBlock; ++i)
    to[i] = scale * static_cast<float>(kNonLinear[static_cast<size_t>(Nibble(p + 2, i))]);
}

// Two bits of element i of a K block: of each 128 elements the first 32 are the lowest bits of 32
// bytes, the next 32 the bits above, and so on.
int TwoBits(const std::byte* quants, int64_t i) {
  return Byte(quants, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
}

void Q2K(const std::byte* p, float* to) {
  const std::byte *scales = p, *quants = p + 16;
  const float d = Half(p + 80), minimum = Half(p + 82);
  for (int64_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(Byte(scales, group) & 15),
                less = minimum * static_cast<float>(Byte(scales, group) >> 4);
    for (int64_t i = group * 16; i < group * 16 + 16; ++i)
      to[i] = scale * static_cast<float>(TwoBits(quants, i)) - less;
  }
}

void Q3K(const std::byte* p, float* to) {
  const std::byte *mask = p, *quants = p + 32, *scales = p + 96;
  const float d = Half(p + 108);
  for (int64_t group = 0; group < 16; ++group) {
    // Six bits: four in the halves of the first eight bytes, two in the quarters of the last four.
    const int low = Byte(scales, group % 8) >> (group / 8 * 4) & 15,
              high = Byte(scales, 8 + group % 4) >> (group / 4 * 2) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (int64_t i = group * 16; i < group * 16 + 16; ++i) {
      const int set = Byte(mask, i % 32) >> (i / 32) & 1;
      to[i] = scale * static_cast<float>(TwoBits(quants, i) - (set ? 0 : 4));
    }
  }
}

// Scale and minimum of group `g` of 8, six bits each in 12 bytes: the first four groups whole, the
// upper two bits of the others above them, their lower four in the last bytes.
struct ScaleAndMinimum {
  float scale, minimum;
};
ScaleAndMinimum GroupOf(const std::byte* packed, int64_t g) {
  if (g < 4) {
    return {static_cast<float>(Byte(packed, g) & 63), static_cast<float>(Byte(packed, 4 + g) & 63)};
  }
  const int low = Byte(packed, 4 + g);
  return {static_cast<float>((low & 15) | (Byte(packed, g - 4) >> 2 & 48)),
          static_cast<float>(low >> 4 | (Byte(packed, g) >> 2 & 48))};
}

// Q4_K and Q5_K: `high` has the fifth bits, a bit of each byte a group; nullptr: there are none.
void Q45K(const std::byte* p, const std::byte* high, const std::byte* quants, float* to) {
  const float d = Half(p), minimum = Half(p + 2);
  for (int64_t group = 0; group < 8; ++group) {
    const ScaleAndMinimum g = GroupOf(p + 4, group);
    const float scale = d * g.scale, less = minimum * g.minimum;
    for (int64_t i = 0; i < 32; ++i) {
      int q = Byte(quants, group / 2 * 32 + i) >> (group % 2 * 4) & 15;
      if (high) q |= (Byte(high, i) >> group & 1) << 4;
      to[group * 32 + i] = scale * static_cast<float>(q) - less;
    }
  }
}

void Q6K(const std::byte* p, float* to) {
  const std::byte *low = p, *high = p + 128, *scales = p + 192;
  const float d = Half(p + 208);
  for (int64_t i = 0; i < kSuper; ++i) {
    const int64_t half = i / 128, within = i % 128;  // 64 bytes of nibbles, 32 of upper bits each
    const int nibble = Byte(low, half * 64 + within % 64) >> (within / 64 * 4) & 15,
              bits = Byte(high, half * 32 + within % 32) >> (within / 32 * 2) & 3;
    to[i] = d * Int8(scales, i / 16) * static_cast<float>((nibble | bits << 4) - 32);
  }
}

}  // namespace

GgufBlock BlockOf(GgufType type, const std::string& where) {
  switch (type) {
    case GgufType::kF32: return {1, 4};
    case GgufType::kF16:
    case GgufType::kBF16: return {1, 2};
    case GgufType::kQ4_0:
    case GgufType::kIQ4_NL: return {kBlock, 2 + 16};
    case GgufType::kQ4_1: return {kBlock, 4 + 16};
    case GgufType::kQ5_0: return {kBlock, 2 + 4 + 16};
    case GgufType::kQ5_1: return {kBlock, 4 + 4 + 16};
    case GgufType::kQ8_0: return {kBlock, 2 + 32};
    case GgufType::kQ2_K: return {kSuper, 16 + 64 + 4};
    case GgufType::kQ3_K: return {kSuper, 32 + 64 + 12 + 2};
    case GgufType::kQ4_K: return {kSuper, 4 + 12 + 128};
    case GgufType::kQ5_K: return {kSuper, 4 + 12 + 32 + 128};
    case GgufType::kQ6_K: return {kSuper, 128 + 64 + 16 + 2};
  }
  throw Error(ErrorCode::kUnsupported,
              "the element type " + std::to_string(static_cast<uint32_t>(type)) +
                  " is not read here: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, "
                  "Q4_K, Q5_K, Q6_K and IQ4_NL are",
              where);
}

void Dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  const GgufBlock block = BlockOf(type, "tensor");
  const auto blocks = static_cast<int64_t>(out.size()) / block.elements;
  PLUMB_CHECK(blocks * block.elements == static_cast<int64_t>(out.size()) &&
              blocks * block.bytes == static_cast<int64_t>(bytes.size()));
  const std::byte* p = bytes.data();
  float* to = out.data();
  for (int64_t b = 0; b < blocks; ++b, p += block.bytes, to += block.elements) {
    switch (type) {
      case GgufType::kF32: *to = Load<float>(p); break;
      case GgufType::kF16: *to = Half(p); break;
      case GgufType::kBF16: *to = ToFloat(BFloat16{Load<uint16_t>(p)}); break;
      case GgufType::kQ8_0: Q8_0(p, to); break;
      case GgufType::kQ4_0: Q4_0(p, to); break;
      case GgufType::kQ4_1: Q4_1(p, to); break;
      case GgufType::kQ5_0: Q5_0(p, to); break;
      case GgufType::kQ5_1: Q5_1(p, to); break;
      case GgufType::kIQ4_NL: Iq4Nl(p, to); break;
      case GgufType::kQ2_K: Q2K(p, to); break;
      case GgufType::kQ3_K: Q3K(p, to); break;
      case GgufType::kQ4_K: Q45K(p, nullptr, p + 16, to); break;
      case GgufType::kQ5_K: Q45K(p, p + 16, p + 48, to); break;
      case GgufType::kQ6_K: Q6K(p, to); break;
    }
  }
}

}  // namespace plumb::policy_model
