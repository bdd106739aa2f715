// Sixteen floats at a time: loads that widen bfloat16, an exp, sums of rows. CPU kernels only.
//
// Compiler vectors rather than intrinsics: one AVX-512 register where the processor has them, a
// pair of pairs of smaller ones where not (GCC 12 keeps a vector wider than the registers in
// memory). Every operation is lane by lane and in a written order, so results do not depend on how
// it is lowered but for contraction to fused multiply-adds.
// Thread safety: pure functions.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"  // everything here is inlined: no vector crosses a call

#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "common/base/dtype.h"
#include "common/base/error.h"

namespace plumb::kernels {

#define PLUMB_INLINE inline __attribute__((always_inline))

inline constexpr int32_t kLanes = 16;

PLUMB_INLINE constexpr int32_t PadToLanes(int32_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

namespace internal {

// A register of the processor, and integers of as many lanes.
#if defined(__AVX512F__)
inline constexpr int kNative = 16;
#elif defined(__AVX2__)
inline constexpr int kNative = 8;
#else
inline constexpr int kNative = 4;
#endif
typedef float NativeFloats __attribute__((vector_size(4 * kNative)));
typedef int32_t NativeInts __attribute__((vector_size(4 * kNative)));
typedef uint32_t NativeWords __attribute__((vector_size(4 * kNative)));
typedef uint16_t NativeHalves __attribute__((vector_size(2 * kNative)));

// Two of T side by side.
template <class T>
struct Pair {
  T lo, hi;
  PLUMB_INLINE float operator[](int lane) const;
};
template <class T>
inline constexpr int kLanesOf = kNative;
template <class T>
inline constexpr int kLanesOf<Pair<T>> = 2 * kLanesOf<T>;

template <class T>
PLUMB_INLINE float Pair<T>::operator[](int lane) const {
  constexpr int half = kLanesOf<T>;
  return lane < half ? lo[lane] : hi[lane - half];
}

template <class T>
PLUMB_INLINE Pair<T> operator+(Pair<T> a, Pair<T> b) {
  return {a.lo + b.lo, a.hi + b.hi};
}
template <class T>
PLUMB_INLINE Pair<T> operator-(Pair<T> a, Pair<T> b) {
  return {a.lo - b.lo, a.hi - b.hi};
}
template <class T>
PLUMB_INLINE Pair<T> operator*(Pair<T> a, Pair<T> b) {
  return {a.lo * b.lo, a.hi * b.hi};
}
template <class T>
PLUMB_INLINE Pair<T> operator+(Pair<T> a, float b) {
  return {a.lo + b, a.hi + b};
}
template <class T>
PLUMB_INLINE Pair<T> operator-(Pair<T> a, float b) {
  return {a.lo - b, a.hi - b};
}
template <class T>
PLUMB_INLINE Pair<T> operator*(Pair<T> a, float b) {
  return {a.lo * b, a.hi * b};
}
template <class T>
PLUMB_INLINE Pair<T>& operator+=(Pair<T>& a, Pair<T> b) {
  return a = a + b;
}
template <class T>
PLUMB_INLINE Pair<T>& operator*=(Pair<T>& a, float b) {
  return a = a * b;
}

template <int Lanes>
struct Wide {
  using Type = Pair<typename Wide<Lanes / 2>::Type>;
};
template <>
struct Wide<kNative> {
  using Type = NativeFloats;
};

// What follows is written for a register, and for a pair as the same of its halves.
template <class T>
PLUMB_INLINE void LoadTo(NativeFloats& v, const T* x) {
  if constexpr (std::same_as<T, float>) {
    std::memcpy(&v, x, sizeof(v));
  } else {
    NativeHalves h;
    std::memcpy(&h, x, sizeof(h));
    v = reinterpret_cast<NativeFloats>(__builtin_convertvector(h, NativeWords) << 16);
  }
}
template <class V, class T>
PLUMB_INLINE void LoadTo(Pair<V>& v, const T* x) {
  LoadTo(v.lo, x);
  LoadTo(v.hi, x + kLanesOf<V>);
}

PLUMB_INLINE void StoreFrom(NativeFloats v, float* to) { std::memcpy(to, &v, sizeof(v)); }
template <class V>
PLUMB_INLINE void StoreFrom(Pair<V> v, float* to) {
  StoreFrom(v.lo, to);
  StoreFrom(v.hi, to + kLanesOf<V>);
}

PLUMB_INLINE NativeFloats Larger(NativeFloats a, NativeFloats b) { return a > b ? a : b; }
template <class V>
PLUMB_INLINE Pair<V> Larger(Pair<V> a, Pair<V> b) {
  return {Larger(a.lo, b.lo), Larger(a.hi, b.hi)};
}

// Lanes below n from `first`, the others from `rest`.
PLUMB_INLINE NativeFloats Join(NativeFloats first, NativeFloats rest, int32_t n) {
  NativeInts lane;
  for (int l = 0; l < kNative; ++l) lane[l] = l;
  return lane < n ? first : rest;
}
template <class V>
PLUMB_INLINE Pair<V> Join(Pair<V> first, Pair<V> rest, int32_t n) {
  return {Join(first.lo, rest.lo, n), Join(first.hi, rest.hi, n - kLanesOf<V>)};
}

// FastExp of cpu_common.h for a vector.
PLUMB_INLINE NativeFloats ExpOf(NativeFloats x) {
  const auto all = [](float value) { return NativeFloats{} + value; };
  const NativeFloats high = all(88.37f), low = all(-87.3f), magic = all(12582912.0f);
  NativeFloats clamped = x > high ? high : x;
  clamped = clamped < low ? low : clamped;
  const NativeFloats n = (clamped * 1.44269504088896341f + magic) - magic;
  NativeFloats r = clamped - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723212e-6f;
  NativeFloats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const NativeFloats scaled =
      p * reinterpret_cast<NativeFloats>((__builtin_convertvector(n, NativeInts) + 127) << 23);
  return x < low ? NativeFloats{} : (x > high ? all(INFINITY) : scaled);
}
template <class V>
PLUMB_INLINE Pair<V> ExpOf(Pair<V> x) {
  return {ExpOf(x.lo), ExpOf(x.hi)};
}

// The lanes of a and b by number, b's counted from kNative on.
template <class At, int... lane>
PLUMB_INLINE NativeFloats Shuffle(NativeFloats a, NativeFloats b, At at,
                                  std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, at(lane)...);
}

// Lane l of the results: blocks of Step lanes of a and b exchanged, as in a transposition of 2 x 2
// blocks.
template <int Step>
PLUMB_INLINE NativeFloats Upper(NativeFloats a, NativeFloats b) {
  constexpr auto at = [](int l) { return (l & Step) == 0 ? l : kNative + l - Step; };
  return Shuffle(a, b, at, std::make_integer_sequence<int, kNative>());
}
template <int Step>
PLUMB_INLINE NativeFloats Lower(NativeFloats a, NativeFloats b) {
  constexpr auto at = [](int l) { return (l & Step) == 0 ? l + Step : kNative + l; };
  return Shuffle(a, b, at, std::make_integer_sequence<int, kNative>());
}
template <int Step, class V>
PLUMB_INLINE Pair<V> Upper(Pair<V> a, Pair<V> b) {
  if constexpr (Step == kLanesOf<V>) return {a.lo, b.lo};
  else return {Upper<Step>(a.lo, b.lo), Upper<Step>(a.hi, b.hi)};
}
template <int Step, class V>
PLUMB_INLINE Pair<V> Lower(Pair<V> a, Pair<V> b) {
  if constexpr (Step == kLanesOf<V>) return {a.hi, b.hi};
  else return {Lower<Step>(a.lo, b.lo), Lower<Step>(a.hi, b.hi)};
}

template <int Step, class V>
PLUMB_INLINE void TransposeStep(V* r) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & Step) != 0) continue;
    const V a = r[i], b = r[i | Step];
    r[i] = Upper<Step>(a, b);
    r[i | Step] = Lower<Step>(a, b);
  }
}
template <int Step, class V>
PLUMB_INLINE void SumStep(V* r) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2 * Step)
    r[i] = Upper<Step>(r[i], r[i + Step]) + Lower<Step>(r[i], r[i + Step]);
}

// All lanes as one: halves first, neighbours last.
template <class Combine>
PLUMB_INLINE float Fold(NativeFloats v, Combine combine) {
  const auto lanes = std::make_integer_sequence<int, kNative>();
  if constexpr (kNative >= 16)
    v = combine(v, Shuffle(
                       v, v, [](int l) { return l ^ 8; }, lanes));
  if constexpr (kNative >= 8)
    v = combine(v, Shuffle(
                       v, v, [](int l) { return l ^ 4; }, lanes));
  v = combine(v, Shuffle(
                     v, v, [](int l) { return l ^ 2; }, lanes));
  v = combine(v, Shuffle(
                     v, v, [](int l) { return l ^ 1; }, lanes));
  return v[0];
}
template <class V, class Combine>
PLUMB_INLINE float Fold(Pair<V> v, Combine combine) {
  return Fold(combine(v.lo, v.hi), combine);
}

}  // namespace internal

using FloatLanes = internal::Wide<kLanes>::Type;

// Running sums of FloatLanes that fit in the processor's registers beside what is multiplied: of 32
// registers, or of 16 where each is two or four of them.
inline constexpr int kSums = internal::kNative == kLanes ? 28 : 6 * internal::kNative / 8;

PLUMB_INLINE FloatLanes Broadcast(float x) { return FloatLanes{} + x; }

template <class T>
PLUMB_INLINE FloatLanes Load(const T* x) {
  FloatLanes v;
  internal::LoadTo(v, x);
  return v;
}

// The first n < 16 elements; zeros behind.
template <class T>
PLUMB_INLINE FloatLanes LoadPart(const T* x, int32_t n) {
  float lanes[kLanes] = {};
  for (int32_t i = 0; i < n; ++i) lanes[i] = ToFloat(x[i]);
  return Load(lanes);
}

PLUMB_INLINE void Store(float* to, FloatLanes v) { internal::StoreFrom(v, to); }

// a > b ? a : b in every lane.
PLUMB_INLINE FloatLanes Larger(FloatLanes a, FloatLanes b) { return internal::Larger(a, b); }

// v where the lane's number is below n, else `other`.
PLUMB_INLINE FloatLanes KeepFirst(FloatLanes v, int32_t n, float other) {
  return internal::Join(v, Broadcast(other), n);
}

// The other way round: v where the lane's number is n or above.
PLUMB_INLINE FloatLanes DropFirst(FloatLanes v, int32_t n, float other) {
  return internal::Join(Broadcast(other), v, n);
}

PLUMB_INLINE FloatLanes Exp(FloatLanes x) { return internal::ExpOf(x); }

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
  return internal::Fold(v, [](auto a, auto b) { return a + b; });
}

PLUMB_INLINE float Max(FloatLanes v) {
  return internal::Fold(v, [](auto a, auto b) { return internal::Larger(a, b); });
}

// The largest of x[0..n); -inf for n = 0. Ignores NaN unless a whole lane is NaN: the caller looks
// for it in its sums.
inline float MaxOf(const float* x, int64_t n) {
  FloatLanes most[4] = {Broadcast(-INFINITY), Broadcast(-INFINITY), Broadcast(-INFINITY),
                        Broadcast(-INFINITY)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) most[u] = Larger(Load(x + i + u * kLanes), most[u]);
  }
  for (int u = 1; u < 4; ++u) most[0] = Larger(most[u], most[0]);
  float top = Max(most[0]);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// A work area that grows and starts on a cache line. Not thread safe: one a thread.
class AlignedFloats {
 public:
  float* Grow(int64_t n) {
    if (size_ < n) {
      data_.reset(static_cast<float*>(
          std::aligned_alloc(64, (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64)));
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
