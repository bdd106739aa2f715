// Element types of GGUF files: size of their blocks and their values as floats.
#include <cstring>

#include "common/base/dtype.h"
#include "common/base/error.h"
#include "policy_model/files/gguf_reader.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kBlock = 32;  // elements that share a scale

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

}  // namespace

GgufBlock BlockOf(GgufType type, const std::string& where) {
  switch (type) {
    case GgufType::kF32: return {1, 4};
    case GgufType::kF16:
    case GgufType::kBF16: return {1, 2};
    case GgufType::kQ4_0: return {kBlock, 2 + 16};
    case GgufType::kQ4_1: return {kBlock, 4 + 16};
    case GgufType::kQ8_0: return {kBlock, 2 + 32};
  }
  throw Error(ErrorCode::kUnsupported,
              "the element type " + std::to_string(static_cast<uint32_t>(type)) +
                  " is not read here: F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are",
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
      case GgufType::kF16: *to = HalfToFloat(Load<uint16_t>(p)); break;
      case GgufType::kBF16: *to = ToFloat(BFloat16{Load<uint16_t>(p)}); break;
      case GgufType::kQ8_0: {
        const float scale = HalfToFloat(Load<uint16_t>(p));
        for (int64_t i = 0; i < kBlock; ++i)
          to[i] = scale * static_cast<float>(Load<int8_t>(p + 2 + i));
        break;
      }
      case GgufType::kQ4_0:
      case GgufType::kQ4_1: {  // low halves are elements 0..15, high halves 16..31
        const float scale = HalfToFloat(Load<uint16_t>(p));
        const bool has_minimum = type == GgufType::kQ4_1;
        const float minimum = has_minimum ? HalfToFloat(Load<uint16_t>(p + 2)) : 0.0f;
        const std::byte* quants = p + (has_minimum ? 4 : 2);
        for (int64_t i = 0; i < kBlock / 2; ++i) {
          const int q = std::to_integer<int>(quants[i]);
          const int low = q & 15, high = q >> 4;
          to[i] = has_minimum ? scale * static_cast<float>(low) + minimum
                              : scale * static_cast<float>(low - 8);
          to[i + kBlock / 2] = has_minimum ? scale * static_cast<float>(high) + minimum
                                           : scale * static_cast<float>(high - 8);
        }
        break;
      }
    }
  }
}

}  // namespace plumb::policy_model
