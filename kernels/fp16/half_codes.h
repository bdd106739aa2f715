// Numbers of 16 bits as IEEE 754's binary16 has them, float16: 1 bit of sign, 5 of exponent, 10 of
// fraction. Up to 65504, normal from 2^-14, in steps of 2^-24 below.
//
// Rounding is to the nearest, ties to even, so a normal number moves by at most 2^-11 of itself;
// from 65520 on it is infinity, which every product with it shows. NaN stays NaN, but not which.
// Thread safety: pure functions, of host and device, with the same bits on both. Errors: none.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/float_bits.h"

namespace plumb::kernels {

inline constexpr uint16_t kHalfInfinity = 0x7C00;

PLUMB_HOST_DEVICE inline uint16_t HalfCode(float x) {
#ifdef __CUDA_ARCH__
  return __half_as_ushort(__float2half_rn(x));
#else
  const uint32_t sign = BitsOf(x) >> 16 & 0x8000U, bits = BitsOf(x) & 0x7FFFFFFFU;
  constexpr uint32_t kNaN = 0x7E00, kSmallestNormal = 0x38800000, k65536 = 0x47800000;
  uint32_t code = kHalfInfinity;
  if (bits > 0x7F800000U) {
    code = kNaN;
  } else if (bits < kSmallestNormal) {
    code = static_cast<uint32_t>(nearbyintf(FloatOf(bits) * 0x1p24f));
  } else if (bits < k65536) {
    const uint32_t half = 0xFFFU + (bits >> 13 & 1U);  // a carry raises the exponent
    code = ((bits + half) >> 13) - (112U << 10);
  }
  return static_cast<uint16_t>(sign | code);
#endif
}

PLUMB_HOST_DEVICE inline float HalfValue(uint16_t code) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(code));
#else
  const uint32_t sign = (code & 0x8000U) << 16, e = code >> 10 & 31U, f = code & 0x3FFU;
  if (e == 0) return FloatOf(sign | BitsOf(static_cast<float>(f) * 0x1p-24f));
  return FloatOf(sign | (e == 31 ? 0x7F800000U : (e + 112U) << 23) | f << 13);
#endif
}

}  // namespace plumb::kernels
