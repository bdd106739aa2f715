// The numbers of keys and values in fewer bits, one by one: what both devices pack and read rows
// with (kv_rows.h says what a row is). Scales are bfloat16, so that what is divided by is what will
// be read.
//
// Thread safety: pure functions. Errors: a code of NaN is 0; the scale of its row is NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/float_bits.h"

namespace plumb::kernels {

// What the largest number of a row becomes.
inline constexpr float kKvMostInt8 = 127, kKvMostFp8 = 448, kKvMostInt4 = -8;

PLUMB_HOST_DEVICE inline void PutKvScale(float scale, uint8_t* row) {
  const BFloat16 rounded = ToBFloat16(scale);
  row[0] = static_cast<uint8_t>(rounded.bits & 0xFF);
  row[1] = static_cast<uint8_t>(rounded.bits >> 8);
}

PLUMB_HOST_DEVICE inline float KvScaleAt(const uint8_t* row) {
  return ToFloat(BFloat16{static_cast<uint16_t>(row[0] | row[1] << 8)});
}

// 1 / scale, for a scale as it will be read again.
PLUMB_HOST_DEVICE inline float KvInverse(float scale) { return scale == 0 ? 0 : 1 / scale; }

// q: a number times the inverse of its scale.
PLUMB_HOST_DEVICE inline uint8_t Int8Code(float q) {
  const float whole = nearbyintf(q), kept = whole < -kKvMostInt8  ? -kKvMostInt8
                                            : whole > kKvMostInt8 ? kKvMostInt8
                                                                  : whole;
  return q != q ? 0 : static_cast<uint8_t>(static_cast<int8_t>(kept));
}

PLUMB_HOST_DEVICE inline float OfInt8(uint8_t code) {
  return static_cast<float>(static_cast<int8_t>(code));
}

PLUMB_HOST_DEVICE inline int Int4Code(float q) {
  const float whole = nearbyintf(q) + 8, kept = whole < 0 ? 0 : whole > 15 ? 15 : whole;
  return q != q ? 0 : static_cast<int>(kept);
}

PLUMB_HOST_DEVICE inline float OfInt4(int code) { return static_cast<float>(code - 8); }

// E4M3: 4 bits of exponent with bias 7, 3 of mantissa, subnormal below 2^-6; ties to even.
PLUMB_HOST_DEVICE inline uint8_t E4M3Code(float q) {
  if (q != q) return 0;
  const uint32_t sign = BitsOf(q) >> 31 << 7;
  const float whole = FloatOf(BitsOf(q) & 0x7FFFFFFFU), a = whole > kKvMostFp8 ? kKvMostFp8 : whole;
  if (a < 0x1p-6F)
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(nearbyintf(a * 0x1p9F)));
  const uint32_t bits = BitsOf(a);
  // 20 bits of mantissa go; what is carried over raises the exponent
  const uint32_t code = ((bits + 0x7FFFFU + ((bits >> 20) & 1U)) >> 20) - ((127U - 7U) << 3);
  return static_cast<uint8_t>(sign | (code > 0x7EU ? 0x7EU : code));
}

PLUMB_HOST_DEVICE inline float OfE4M3(uint8_t code) {
  const uint32_t exponent = code >> 3 & 15U, mantissa = code & 7U, sign = code >> 7;
  if ((code & 0x7FU) == 0x7FU) return FloatOf(0x7FC00000U);
  const float a = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9F
                                : FloatOf((exponent + 120U) << 23 | mantissa << 20);
  return sign != 0 ? -a : a;
}

}  // namespace plumb::kernels
