// Element types of weights, activations and files.
// Thread safety: values. bf16 is stored as its 16 bits and rounds to nearest even, as hardware
// does.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "common/base/rng.h"  // PLUMB_HOST_DEVICE

namespace plumb {

// Do not change the values of existing entries: they are stored.
enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kInt32 = 3, kInt64 = 4 };

constexpr size_t ElementSize(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return 4;
    case DType::kBFloat16: return 2;
    case DType::kFloat16: return 2;
    case DType::kInt32: return 4;
    case DType::kInt64: return 8;
  }
  return 0;
}

struct BFloat16 {
  uint16_t bits;
};

PLUMB_HOST_DEVICE inline float ToFloat(float x) { return x; }
PLUMB_HOST_DEVICE inline float ToFloat(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

PLUMB_HOST_DEVICE inline BFloat16 ToBFloat16(float x) {
#ifdef __CUDA_ARCH__
  uint32_t bits = __float_as_uint(x);
#else
  uint32_t bits = std::bit_cast<uint32_t>(x);
#endif
  // NaN stays NaN
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return BFloat16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  bits += 0x7FFFu + ((bits >> 16) & 1u);
  return BFloat16{static_cast<uint16_t>(bits >> 16)};
}

template <class T>
PLUMB_HOST_DEVICE inline T FromFloat(float x);
template <>
PLUMB_HOST_DEVICE inline float FromFloat<float>(float x) {
  return x;
}
template <>
PLUMB_HOST_DEVICE inline BFloat16 FromFloat<BFloat16>(float x) {
  return ToBFloat16(x);
}

}  // namespace plumb
