// Sixteen floats at a time: loads that widen bfloat16, an exp, sums of rows. CPU kernels only.
//
// Compiler vectors rather than intrinsics: one AVX-512 register where the processor has them, several smaller ones where
// not. Every operation is lane by lane and in a written order, so results do not depend on how it is lowered but for
// contraction to fused multiply-adds. Thread safety: pure functions.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"  // everything here is inlined: no vector crosses a call

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/dtype.h"
#include "common/error.h"

namespace plumb::kernels {

inline constexpr int32_t kLanes = 16;
typedef float FloatLanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t WordLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

#define PLUMB_INLINE inline __attribute__((always_inline))

PLUMB_INLINE constexpr int32_t PadToLanes(int32_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

PLUMB_INLINE FloatLanes Broadcast(float x) { return FloatLanes{} + x; }

PLUMB_INLINE FloatLanes Load(const float* x) {
  FloatLanes v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}

PLUMB_INLINE FloatLanes Load(const BFloat16* x) {
  HalfLanes h;
  std::memcpy(&h, x, sizeof(h));
  return reinterpret_cast<FloatLanes>(__builtin_convertvector(h, WordLanes) << 16);
}

// The first n < 16 elements; zeros behind.
template <class T>
PLUMB_INLINE FloatLanes LoadPart(const T* x, int32_t n) {
  float lanes[kLanes] = {};
  for (int32_t i = 0; i < n; ++i) lanes[i] = ToFloat(x[i]);
  return Load(lanes);
}

PLUMB_INLINE void Store(float* to, FloatLanes v) { std::memcpy(to, &v, sizeof(v)); }

PLUMB_INLINE IntLanes LaneNumbers() { return IntLanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

// v where the lane's number is below n, else `other`.
PLUMB_INLINE FloatLanes KeepFirst(FloatLanes v, int32_t n, float other) { return LaneNumbers() < n ? v : Broadcast(other); }

// The other way round: v where the lane's number is n or above.
PLUMB_INLINE FloatLanes DropFirst(FloatLanes v, int32_t n, float other) { return LaneNumbers() < n ? Broadcast(other) : v; }

// FastExp of cpu_common.h for a vector.
PLUMB_INLINE FloatLanes Exp(FloatLanes x) {
  const FloatLanes high = Broadcast(88.37f), low = Broadcast(-87.3f), magic = Broadcast(12582912.0f);
  FloatLanes clamped = x > high ? high : x;
  clamped = clamped < low ? low : clamped;
  const FloatLanes n = (clamped * 1.44269504088896341f + magic) - magic;
  FloatLanes r = clamped - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723212e-6f;
  FloatLanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const FloatLanes scaled = p * reinterpret_cast<FloatLanes>((__builtin_convertvector(n, IntLanes) + 127) << 23);
  return x < low ? FloatLanes{} : (x > high ? Broadcast(INFINITY) : scaled);
}

namespace internal {

// Lane l of the results: blocks of Step lanes of a and b exchanged, as in a transposition of 2 x 2 blocks.
template <int Step>
PLUMB_INLINE FloatLanes Upper(FloatLanes a, FloatLanes b) {
  constexpr auto at = [](int l) { return (l & Step) == 0 ? l : 16 + l - Step; };
  return __builtin_shufflevector(a, b, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10),
                                 at(11), at(12), at(13), at(14), at(15));
}
template <int Step>
PLUMB_INLINE FloatLanes Lower(FloatLanes a, FloatLanes b) {
  constexpr auto at = [](int l) { return (l & Step) == 0 ? l + Step : 16 + l; };
  return __builtin_shufflevector(a, b, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10),
                                 at(11), at(12), at(13), at(14), at(15));
}
template <int Step>
PLUMB_INLINE void TransposeStep(FloatLanes* r) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & Step) != 0) continue;
    const FloatLanes a = r[i], b = r[i | Step];
    r[i] = Upper<Step>(a, b);
    r[i | Step] = Lower<Step>(a, b);
  }
}
template <int Step>
PLUMB_INLINE void SumStep(FloatLanes* r) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2 * Step) r[i] = Upper<Step>(r[i], r[i + Step]) + Lower<Step>(r[i], r[i + Step]);
}

}  // namespace internal

// A 16 x 16 block, rows for columns.
PLUMB_INLINE void Transpose(FloatLanes (&r)[16]) {
  internal::TransposeStep<1>(r);
  internal::TransposeStep<2>(r);
  internal::TransposeStep<4>(r);
  internal::TransposeStep<8>(r);
}

// Lane l: the sum of the 16 lanes of r[l]. r is used up.
PLUMB_INLINE FloatLanes SumRows(FloatLanes (&r)[16]) {
  internal::SumStep<1>(r);
  internal::SumStep<2>(r);
  internal::SumStep<4>(r);
  internal::SumStep<8>(r);
  return r[0];
}

PLUMB_INLINE float Sum(FloatLanes v) {
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return v[0] + v[1];
}

PLUMB_INLINE float Max(FloatLanes v) {
  const auto larger = [](FloatLanes a, FloatLanes b) { return a > b ? a : b; };
  v = larger(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = larger(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = larger(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return v[0] > v[1] ? v[0] : v[1];
}

// The largest of x[0..n); -inf for n = 0. Ignores NaN unless a whole lane is NaN: the caller looks for it in its sums.
inline float MaxOf(const float* x, int64_t n) {
  FloatLanes most[4] = {Broadcast(-INFINITY), Broadcast(-INFINITY), Broadcast(-INFINITY), Broadcast(-INFINITY)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      const FloatLanes v = Load(x + i + u * kLanes);
      most[u] = v > most[u] ? v : most[u];
    }
  }
  for (int u = 1; u < 4; ++u) most[0] = most[u] > most[0] ? most[u] : most[0];
  float top = Max(most[0]);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// A work area that grows and starts on a cache line. Not thread safe: one a thread.
class AlignedFloats {
 public:
  float* Grow(int64_t n) {
    if (size_ < n) {
      data_.reset(static_cast<float*>(std::aligned_alloc(64, (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64)));
      PLUMB_CHECK(data_ != nullptr, "out of memory");
      size_ = n;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

}  // namespace plumb::kernels
