// Moments and weights in few bits, rounded up or down at random: what AdamwCompact does to one
// element, for both of its implementations.
//
// What the codes mean: adamw_compact.h. Thread safety: pure functions, of host and device. Ranges:
// a draw has as many random bits as a function says.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "common/base/dtype.h"
#include "common/base/rng.h"
#include "kernels/device/float_bits.h"

namespace plumb::kernels {

inline constexpr int kCodeFraction = 4;               // bits
inline constexpr int kCodeDraw = 23 - kCodeFraction;  // of a float's fraction, rounded away
inline constexpr float kLargestCode = 31.0f / 16.0f;  // before it is scaled to 1
inline constexpr uint8_t kCodeSign = 0x80;            // of a first moment

// A floating-point number of 8 bits or, under a sign, of 7: exponents up to 0.
template <int kExponent>
struct MomentCode {
  static constexpr int kTop = (1 << kExponent) - 1;  // the exponent that means 0
  static constexpr uint32_t kMost = (1u << (kExponent + kCodeFraction)) - 1;
  static constexpr float kSmallestNormal = 1.0f / static_cast<float>(1u << (kTop - 1));

  PLUMB_HOST_DEVICE static constexpr float Value(uint32_t code) {
    const uint32_t e = code >> kCodeFraction, f = code & ((1u << kCodeFraction) - 1);
    const float at_top = e == 0
                             ? 2.0f * static_cast<float>(f) / 16.0f
                             : (1.0f + static_cast<float>(f) / 16.0f) * static_cast<float>(1u << e);
    return at_top / static_cast<float>(1u << kTop) / kLargestCode;
  }
  static constexpr auto kValues = [] {
    std::array<float, kMost + 1> values{};
    for (uint32_t c = 0; c <= kMost; ++c) values[c] = Value(c);
    return values;
  }();

  // Of x in [0, 1], with kCodeDraw random bits.
  PLUMB_HOST_DEVICE static uint32_t Round(float x, uint32_t draw) {
    const float r = x * kLargestCode;
    const uint32_t normal =
        ((BitsOf(r) + draw) >> kCodeDraw) - (static_cast<uint32_t>(127 - kTop) << kCodeFraction);
    constexpr float kSteps = 16.0f / kSmallestNormal * static_cast<float>(1u << kCodeDraw);
    const float below = r < kSmallestNormal ? r : kSmallestNormal;
    const uint32_t even = (static_cast<uint32_t>(below * kSteps) + draw) >> kCodeDraw;
    const uint32_t code = r < kSmallestNormal ? even : normal;
    return code < kMost ? code : kMost;
  }
};
using CodeM = MomentCode<3>;
using CodeV = MomentCode<4>;
static_assert(CodeM::kMost == 127 && CodeV::kMost == 255);

// As they are stored, of `share`, their magnitude over the scale: with its sign; and 0 only for 0.
PLUMB_HOST_DEVICE inline uint8_t StoredM(float m, float share, uint32_t draw) {
  return static_cast<uint8_t>(CodeM::Round(share, draw) | (BitsOf(m) >> 31 != 0 ? kCodeSign : 0u));
}
PLUMB_HOST_DEVICE inline uint8_t StoredV(float v, float share, uint32_t draw) {
  const uint32_t code = CodeV::Round(share, draw);
  return static_cast<uint8_t>(v > 0 && code == 0 ? 1u : code);
}

// With 16 random bits. The result is that of a finite number or not one; what is finite stays so.
PLUMB_HOST_DEVICE inline BFloat16 RoundAtRandom(float x, uint32_t draw) {
  constexpr uint32_t kExponentBits = 0x7F800000u, kQuiet = 0x00400000u;
  const uint32_t bits = BitsOf(x), up = bits + (draw & 0xFFFFu);
  // Without branches: neither what is not finite nor what would become so is rounded up.
  const bool stays =
      (bits & kExponentBits) == kExponentBits || (up & kExponentBits) == kExponentBits;
  return BFloat16{static_cast<uint16_t>((stays ? bits | (x != x ? kQuiet : 0u) : up) >> 16)};
}

// 64 random bits are one element's: kCodeDraw for each moment, 16 of the rest for the weight.
struct ElementDraws {
  uint32_t of_m, of_v, of_weight;
};
PLUMB_HOST_DEVICE inline ElementDraws DrawsOf(uint32_t one, uint32_t two) {
  return {one >> (32 - kCodeDraw), two >> (32 - kCodeDraw), ((one & 0x1FFFu) << 3) | (two & 7u)};
}

}  // namespace plumb::kernels
