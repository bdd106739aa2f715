#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/device/cuda_common.h"
#include "kernels/update/adamw_compact.h"
#include "kernels/update/moment_codes.h"

namespace plumb::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kTurns = 4;                                   // blocks of moments a warp takes
constexpr int kEach = static_cast<int>(kMomentBlock) / 32;  // elements of a lane, side by side

// A lane's elements; at the end of a tensor, and where memory does not allow more, one by one.
template <bool Whole, class V>
__device__ __forceinline__ Few<kEach, V> Load(const V* from, int count) {
  Few<kEach, V> out = {};
  if constexpr (Whole && sizeof(out) >= 16) {
#pragma unroll
    for (int k = 0; k < static_cast<int>(sizeof(out)) / 16; ++k)
      reinterpret_cast<uint4*>(&out)[k] = reinterpret_cast<const uint4*>(from)[k];
  } else if constexpr (Whole) {
    out = *reinterpret_cast<const Few<kEach, V>*>(from);
  } else {
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      if (u < count) out.x[u] = from[u];
    }
  }
  return out;
}

template <bool Whole, class V>
__device__ __forceinline__ void Store(V* to, const Few<kEach, V>& of, int count) {
  if constexpr (Whole && sizeof(of) >= 16) {
    const auto* words = reinterpret_cast<const uint32_t*>(&of);
#pragma unroll
    for (int k = 0; k < static_cast<int>(sizeof(of)) / 16; ++k) {
      asm volatile(
          "st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(reinterpret_cast<uint4*>(to) + k),
          "r"(words[4 * k]), "r"(words[4 * k + 1]), "r"(words[4 * k + 2]), "r"(words[4 * k + 3])
          : "memory");
    }
  } else if constexpr (Whole) {
    *reinterpret_cast<Few<kEach, V>*>(to) = of;
  } else {
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      if (u < count) to[u] = of.x[u];
    }
  }
}

// Within two units in the last place, and a few instructions instead of the exact ones' many.
// REQUIRES: a divisor from FLT_MIN to 2^126.
__device__ __forceinline__ float Root(float x) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}
__device__ __forceinline__ float Reciprocal(float x) {
  float over;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(over) : "f"(x));
  return over;
}

// Codes are floats whose exponents end kTop above the smallest: moved there, a code is the upper
// bits of a float, also where it is below the smallest normal one. This is the distance.
template <class Code>
__device__ constexpr float Moved() {
  return __builtin_bit_cast(float, uint32_t{127 + (127 - Code::kTop)} << 23);
}
template <class Code>
__device__ constexpr float MovedBack() {
  return __builtin_bit_cast(float, uint32_t{127 - (127 - Code::kTop)} << 23);
}

// Up to kLargestCode, which stands for the scale; `bits`: the code's and, of a first moment, a
// sign.
template <class Code>
__device__ __forceinline__ float Decoded(uint32_t bits) {
  return __uint_as_float(bits) * Moved<Code>();
}
__device__ __forceinline__ float DecodedM(uint8_t code) {
  const uint32_t wide = code;
  return Decoded<CodeM>(((wide & kCodeSign) << 24) | ((wide & CodeM::kMost) << kCodeDraw));
}
__device__ __forceinline__ float DecodedV(uint8_t code) {
  return Decoded<CodeV>(uint32_t{code} << kCodeDraw);
}

// The other way, from 0 to kLargestCode: MomentCode::Round in one sum. What lies below the smallest
// normal code is rounded to its last bit instead of cut off before the draw is added.
template <class Code>
__device__ __forceinline__ uint32_t Encoded(float share, uint32_t draw) {
  const uint32_t code = (__float_as_uint(share * MovedBack<Code>()) + draw) >> kCodeDraw;
  return code < Code::kMost ? code : Code::kMost;
}

// kLargestCode over the largest of a block, of which `x` are a lane's elements; those of a block
// whose largest has no such quotient are all made larger first.
__device__ __forceinline__ float ShareOf(float largest, float (&x)[kEach]) {
  constexpr float kTiny = 1e-37f, kUp = 18446744073709551616.0f;  // 2^64
  if (largest == 0.0f) return 0.0f;
  if (largest < kTiny) {
#pragma unroll
    for (int u = 0; u < kEach; ++u) x[u] *= kUp;
    largest *= kUp;
  }
  return kLargestCode * __frcp_rn(largest);
}

// What a step does to every element.
struct Factors {
  float step, correct2, decayed, eps;
};

// Block `b` of a tensor's moments by one warp; the expressions of the CPU, but for quotients: they
// are products with a reciprocal, and a few units in the last place off.
template <bool Whole, class T, class G>
__device__ __forceinline__ void UpdateBlock(const AdamwCompact& a, const CompactTensor& of,
                                            const Factors& by, int64_t b, int count) {
  const AdamwOptions& o = a.options;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t at = of.at + b * kMomentBlock + int64_t{lane} * kEach, scale = of.first_block + b;
  float m[kEach], v[kEach], w[kEach];
  if (a.m.codes) {
    const auto codes = Load<Whole>(a.m.codes + at, count);
    const float each = a.m.scales[scale] * (1.0f / kLargestCode);
#pragma unroll
    for (int u = 0; u < kEach; ++u) m[u] = DecodedM(codes.x[u]) * each;
  } else {
    const auto exact = Load<Whole>(a.m.exact + at, count);
#pragma unroll
    for (int u = 0; u < kEach; ++u) m[u] = exact.x[u];
  }
  if (a.v.codes) {
    const auto codes = Load<Whole>(a.v.codes + at, count);
    const float each = a.v.scales[scale] * (1.0f / kLargestCode);
#pragma unroll
    for (int u = 0; u < kEach; ++u) v[u] = DecodedV(codes.x[u]) * each;
  } else {
    const auto exact = Load<Whole>(a.v.exact + at, count);
#pragma unroll
    for (int u = 0; u < kEach; ++u) v[u] = exact.x[u];
  }
  if (a.master) {
    const auto master = Load<Whole>(a.master + at, count);
#pragma unroll
    for (int u = 0; u < kEach; ++u) w[u] = master.x[u];
  } else {
    const auto weights = Load<Whole>(static_cast<const T*>(a.param) + at, count);
#pragma unroll
    for (int u = 0; u < kEach; ++u) w[u] = ToFloat(weights.x[u]);
  }
  const auto grad = Load<Whole>(static_cast<const G*>(a.grad) + at, count);
  const float keep = of.decay ? by.decayed : 1.0f;
  float largest_m = 0, largest_v = 0;
#pragma unroll
  for (int u = 0; u < kEach; ++u) {
    const float g = ToFloat(grad.x[u]) * o.grad_scale;
    m[u] = o.beta1 * m[u] + (1.0f - o.beta1) * g;
    v[u] = o.beta2 * v[u] + (1.0f - o.beta2) * g * g;
    v[u] = FLT_MAX < v[u] ? FLT_MAX : v[u];
    w[u] = w[u] * keep - by.step * m[u] * Reciprocal(Root(v[u] * by.correct2) + by.eps);
    if (!Whole && u >= count) m[u] = v[u] = 0;
    largest_m = fmaxf(largest_m, fabsf(m[u]));
    largest_v = fmaxf(largest_v, v[u]);
  }
  ElementDraws bits[kEach] = {};
  if (a.m.codes || a.v.codes || !a.master) {
#pragma unroll
    for (int u = 0; u < kEach; u += 2) {
      const Random4 drawn =
          RandomAt(a.seed, static_cast<uint64_t>(a.first + at + u) / 2, a.set, a.draw_step);
      bits[u] = DrawsOf(drawn.x[0], drawn.x[1]);
      bits[u + 1] = DrawsOf(drawn.x[2], drawn.x[3]);
    }
  }
  if (a.master) {
    Few<kEach, float> master;
#pragma unroll
    for (int u = 0; u < kEach; ++u) master.x[u] = w[u];
    Store<Whole>(a.master + at, master, count);
  }
  if (a.param && (a.master || sizeof(T) != sizeof(BFloat16))) {
    Few<kEach, T> weights;
#pragma unroll
    for (int u = 0; u < kEach; ++u) weights.x[u] = FromFloat<T>(w[u]);
    Store<Whole>(static_cast<T*>(a.param) + at, weights, count);
  } else if (a.param) {
    Few<kEach, BFloat16> weights;
#pragma unroll
    for (int u = 0; u < kEach; ++u) weights.x[u] = RoundAtRandom(w[u], bits[u].of_weight);
    Store<Whole>(static_cast<BFloat16*>(a.param) + at, weights, count);
  }
  if (a.m.codes) {
    largest_m = WarpMax(largest_m);
    if (lane == 0) a.m.scales[scale] = largest_m;
    const float share = ShareOf(largest_m, m);
    Few<kEach, uint8_t> codes;
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      codes.x[u] = static_cast<uint8_t>(Encoded<CodeM>(fabsf(m[u]) * share, bits[u].of_m) |
                                        ((__float_as_uint(m[u]) >> 24) & kCodeSign));
    }
    Store<Whole>(a.m.codes + at, codes, count);
  } else {
    Few<kEach, float> exact;
#pragma unroll
    for (int u = 0; u < kEach; ++u) exact.x[u] = m[u];
    Store<Whole>(a.m.exact + at, exact, count);
  }
  if (a.v.codes) {
    largest_v = WarpMax(largest_v);
    if (lane == 0) a.v.scales[scale] = largest_v;
    const float share = ShareOf(largest_v, v);
    Few<kEach, uint8_t> codes;
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      const uint32_t code = Encoded<CodeV>(v[u] * share, bits[u].of_v);
      codes.x[u] = static_cast<uint8_t>(v[u] > 0 && code == 0 ? 1u : code);
    }
    Store<Whole>(a.v.codes + at, codes, count);
  } else {
    Few<kEach, float> exact;
#pragma unroll
    for (int u = 0; u < kEach; ++u) exact.x[u] = v[u];
    Store<Whole>(a.v.exact + at, exact, count);
  }
}

// The last of `count` tensors that begins at block `b` or before.
__device__ __forceinline__ int64_t TensorAt(const CompactTensor* tensors, int64_t count,
                                            int64_t b) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (tensors[middle].first_block <= b ? low : high) = middle;
  }
  return low;
}

// A block of threads takes kWarps * kTurns blocks of moments that follow each other, a warp every
// kWarps-th of them; `tensors` is nullptr where there is but one.
template <class T, class G>
__global__ void __launch_bounds__(kThreads, 3)
    Update(AdamwCompact a, CompactTensor only, const CompactTensor* tensors, int64_t count,
           int64_t blocks, Factors by, bool wide) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t begin = int64_t{blockIdx.x} * kWarps * kTurns;
  int64_t tensor = tensors ? TensorAt(tensors, count, begin) : 0;
  CompactTensor of = tensors ? tensors[tensor] : only;
#pragma unroll 1
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t b = begin + turn * kWarps + warp;
    if (b >= blocks) return;
    while (tensors && tensor + 1 < count && tensors[tensor + 1].first_block <= b)
      of = tensors[++tensor];
    const int64_t own = b - of.first_block, left = of.n - own * kMomentBlock - lane * kEach;
    const int here = left < kEach ? static_cast<int>(left < 0 ? 0 : left) : kEach;
    // The same for all lanes of a warp.
    if (wide && of.at % kEach == 0 && of.n - own * kMomentBlock >= kMomentBlock)
      UpdateBlock<true, T, G>(a, of, by, own, here);
    else UpdateBlock<false, T, G>(a, of, by, own, here);
  }
}

bool Aligned8(const void* p) { return reinterpret_cast<uintptr_t>(p) % 8 == 0; }

void LaunchUpdate(const Launch& launch, const AdamwCompact& a, const CompactTensor& only,
                  const CompactTensor* tensors, int64_t count, int64_t blocks) {
  PLUMB_CHECK(a.first % 2 == 0, "draws are made for two elements at a time");
  PLUMB_CHECK(a.master || launch.dtype == DType::kBFloat16, "weights that are their own masters");
  if (blocks == 0) return;
  const auto step = static_cast<double>(a.options.step);
  const auto correct1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(a.options.beta1), step)));
  const auto correct2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(a.options.beta2), step)));
  const Factors by{.step = a.options.learning_rate * correct1,
                   .correct2 = correct2,
                   .decayed = 1.0f - a.options.learning_rate * a.options.weight_decay,
                   .eps = std::max(a.options.eps, FLT_MIN)};
  const bool wide = Aligned16(a.param) && Aligned16(a.master) && Aligned16(a.grad) &&
                    Aligned16(a.m.exact) && Aligned16(a.v.exact) && Aligned8(a.m.codes) &&
                    Aligned8(a.v.codes);
  constexpr int64_t kOfThreads = int64_t{kWarps} * kTurns;
  const int64_t grid = (blocks + kOfThreads - 1) / kOfThreads;
  PLUMB_CHECK(grid <= INT32_MAX, "more blocks than a launch has");
  ForDType(launch.dtype, [&]<class T>(T) {
    ForDType(a.grad_dtype, [&]<class G>(G) {
      Update<T, G><<<static_cast<unsigned>(grid), kThreads, 0, StreamOf(launch)>>>(
          a, only, tensors, count, blocks, by, wide);
    });
  });
  CheckLaunch(AdamwCompact::kName);
}

}  // namespace

void AdamwCompact::Cuda(const Launch& launch) const {
  LaunchUpdate(launch, *this, {.n = n, .decay = decay ? 1 : 0}, nullptr, 1, MomentBlocks(n));
}

void AdamwCompactSet::Cuda(const Launch& launch) const {
  LaunchUpdate(launch, all, {}, tensors, count, blocks);
}

}  // namespace plumb::kernels
