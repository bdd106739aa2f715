#ifdef __F16C__
#include <immintrin.h>
#endif

#include <algorithm>

#include "kernels/device/cpu_common.h"
#include "kernels/fp16/half_codes.h"
#include "kernels/fp16/round_half.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kAtOnce = 8;

// kAtOnce numbers, with the processor's own instructions where it has them: the same roundings.
void Round(const float* x, uint16_t* code, float* value) {
#ifdef __F16C__
  const __m128i codes = _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT);
  if (code) _mm_storeu_si128(reinterpret_cast<__m128i*>(code), codes);
  if (value) _mm256_storeu_ps(value, _mm256_cvtph_ps(codes));
#else
  for (int64_t i = 0; i < kAtOnce; ++i) {
    const uint16_t rounded = HalfCode(x[i]);
    if (code) code[i] = rounded;
    if (value) value[i] = HalfValue(rounded);
  }
#endif
}

template <class T>
void RoundAll(const RoundToHalf& of) {
  const auto* const x = static_cast<const T*>(of.x);
  const int64_t blocks = of.n / kAtOnce;
#pragma omp parallel for schedule(static) if (of.n > kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t at = b * kAtOnce;
    float wide[kAtOnce];
    for (int64_t i = 0; i < kAtOnce; ++i) wide[i] = ToFloat(x[at + i]);
    Round(wide, of.code ? of.code + at : nullptr, of.value ? of.value + at : nullptr);
  }
  for (int64_t i = blocks * kAtOnce; i < of.n; ++i) {
    const uint16_t rounded = HalfCode(ToFloat(x[i]));
    if (of.code) of.code[i] = rounded;
    if (of.value) of.value[i] = HalfValue(rounded);
  }
}

}  // namespace

void RoundToHalf::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { RoundAll<T>(*this); });
}

}  // namespace plumb::kernels
