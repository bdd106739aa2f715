// Numbers of 8 bits that products read: what their codes mean, and the nearest code of a number.
//
//   E4M3   4 bits of exponent, 3 of fraction: up to 448, normal from 2^-6, steps of 2^-9 below
//   E5M2   5 bits of exponent, 2 of fraction: up to 57344, normal from 2^-14, steps of 2^-16 below
// Rounding is to the nearest, ties to even, so a normal number moves by at most 2^-4 (E4M3) or 2^-3
// (E5M2) of itself; beyond the largest is the largest. NaN stays NaN; infinities are not stored.
// A row that shares a scale has its largest magnitude at the largest code: what is not finite in it
// makes it NaN, which every product with it shows.
// Thread safety: pure functions, of host and device, with the same bits on both. Errors: none.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/float_bits.h"

namespace plumb::kernels {

enum class Fp8 : uint8_t { kE4M3, kE5M2 };

template <int kFraction, int kBias, uint32_t kMostCode>
struct Fp8Code {
  static constexpr uint8_t kNaN = 0x7F;
  static constexpr uint32_t kMostBits = kMostCode;
  static constexpr uint32_t kSmallestNormalBits = static_cast<uint32_t>(128 - kBias) << 23;

  // What a code says.
  PLUMB_HOST_DEVICE static float Value(uint8_t code) {
    const uint32_t magnitude = code & 0x7FU, e = magnitude >> kFraction,
                   f = magnitude & ((1U << kFraction) - 1);
    if (magnitude > kMostCode) return FloatOf(0x7FC00000U);
    const float step = FloatOf(static_cast<uint32_t>(128 - kBias - kFraction) << 23);
    const float a = e == 0 ? static_cast<float>(f) * step
                           : FloatOf((e + 127U - kBias) << 23 | f << (23 - kFraction));
    return (code & 0x80U) != 0 ? -a : a;
  }
  PLUMB_HOST_DEVICE static float Most() { return Value(kMostCode); }

  PLUMB_HOST_DEVICE static uint8_t Code(float x) {
    if (x != x) return kNaN;
    const uint32_t sign = BitsOf(x) >> 31 << 7, bits = BitsOf(x) & 0x7FFFFFFFU;
    uint32_t code = 0;
    if (bits < kSmallestNormalBits) {
      const float steps = FloatOf(static_cast<uint32_t>(126 + kBias + kFraction) << 23);
      code = static_cast<uint32_t>(nearbyintf(FloatOf(bits) * steps));
    } else {
      constexpr int kGone = 23 - kFraction;  // bits of the fraction; a carry raises the exponent
      const uint32_t half = (1U << (kGone - 1)) - 1 + ((bits >> kGone) & 1U);
      code = ((bits + half) >> kGone) - (static_cast<uint32_t>(127 - kBias) << kFraction);
    }
    return static_cast<uint8_t>(sign | (code > kMostCode ? kMostCode : code));
  }
};
using E4M3 = Fp8Code<3, 7, 0x7E>;
using E5M2 = Fp8Code<2, 15, 0x7B>;

// Of a row whose largest magnitude that is: a number is its code times this. Not below the smallest
// normal float, so that its inverse is finite.
template <class C>
PLUMB_HOST_DEVICE inline float Fp8Scale(float largest) {
  const float scale = largest / C::Most(), least = FloatOf(1U << 23);
  return scale < least ? least : scale;
}

template <class F>
void ForFp8(Fp8 format, const F& f) {
  switch (format) {
    case Fp8::kE4M3: return f(E4M3());
    case Fp8::kE5M2: return f(E5M2());
  }
}

}  // namespace plumb::kernels
