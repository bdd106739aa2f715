// What the CPU kernels share: element-type dispatch, an exp that vectorises, the size from which
// threads pay.
//
// Thread safety: pure functions.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/launch.h"

namespace plumb::kernels {

// Elements below which a parallel region costs more than it saves.
inline constexpr int64_t kParallelElements = 16384;

// Calls body(T{}) with T = float or BFloat16.
template <class Body>
void ForDType(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32: body(float{}); return;
    case DType::kBFloat16: body(BFloat16{}); return;
    default: throw Error(ErrorCode::kUnsupported, "kernels compute in float32 and bfloat16 only");
  }
}

// exp in fp32, within 2 ulp on [-87.3, 88.37]: 2^n * polynomial after Cody-Waite reduction. 0
// below, inf above, NaN stays. Written without branches, so that loops over it vectorise (libm's
// exp does not).
inline float FastExp(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x > 88.37f ? 88.37f : (x < -87.3f ? -87.3f : x);
  const float shifted = clamped * 1.44269504088896341f + magic;
  const float n = shifted - magic;
  float r = clamped - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723212e-6f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // n in the low bits; a NaN has some, too
  const uint32_t bits = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float scaled = p * std::bit_cast<float>(bits);
  return x < -87.3f ? 0.0f : (x > 88.37f ? INFINITY : scaled);
}

}  // namespace plumb::kernels
