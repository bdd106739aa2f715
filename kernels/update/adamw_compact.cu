#include <cfloat>
#include <cmath>

#include "kernels/device/cuda_common.h"
#include "kernels/update/adamw_compact.h"
#include "kernels/update/moment_codes.h"

namespace plumb::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kEach = static_cast<int>(kMomentBlock) / 32;  // elements of a lane, side by side

// What the codes mean, once a block of threads.
struct Values {
  float of_m[CodeM::kMost + 1], of_v[CodeV::kMost + 1];
  __device__ void Fill() {
    for (unsigned c = threadIdx.x; c <= CodeM::kMost; c += blockDim.x) of_m[c] = CodeM::Value(c);
    for (unsigned c = threadIdx.x; c <= CodeV::kMost; c += blockDim.x) of_v[c] = CodeV::Value(c);
    __syncthreads();
  }
  __device__ float M(uint8_t code) const {
    const float x = of_m[code & CodeM::kMost];
    return (code & kCodeSign) != 0 ? -x : x;
  }
};

// A lane's elements; at the end of a tensor, and where memory does not allow more, one by one.
template <class V>
__device__ __forceinline__ Few<kEach, V> Load(const V* from, int64_t count, bool whole) {
  Few<kEach, V> out = {};
  if (whole) {
    constexpr int kWords = sizeof(out) >= 16 ? static_cast<int>(sizeof(out)) / 16 : 1;
    if constexpr (sizeof(out) >= 16) {
#pragma unroll
      for (int k = 0; k < kWords; ++k)
        reinterpret_cast<uint4*>(&out)[k] = reinterpret_cast<const uint4*>(from)[k];
    } else {
      out = *reinterpret_cast<const Few<kEach, V>*>(from);
    }
    return out;
  }
#pragma unroll
  for (int u = 0; u < kEach; ++u) {
    if (u < count) out.x[u] = from[u];
  }
  return out;
}

template <class V>
__device__ __forceinline__ void Store(V* to, const Few<kEach, V>& of, int64_t count, bool whole) {
  if (whole) {
    if constexpr (sizeof(of) >= 16) {
#pragma unroll
      for (int k = 0; k < static_cast<int>(sizeof(of)) / 16; ++k)
        reinterpret_cast<uint4*>(to)[k] = reinterpret_cast<const uint4*>(&of)[k];
    } else {
      *reinterpret_cast<Few<kEach, V>*>(to) = of;
    }
    return;
  }
#pragma unroll
  for (int u = 0; u < kEach; ++u) {
    if (u < count) to[u] = of.x[u];
  }
}

// Within two units in the last place, and many instructions less than the exact one.
__device__ __forceinline__ float Root(float x) {
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}

// x / largest; `over`: 1 / largest, which is no number where that is tiny.
__device__ __forceinline__ float Share(float x, float largest, float over) {
  constexpr float kTiny = 1e-37f;
  if (largest < kTiny) return largest > 0 ? x / largest : 0.0f;
  return x * over;
}

// One warp a block of moments; the expressions of the CPU, but for quotients: they are products
// with a reciprocal, or fast ones, and a few units in the last place off.
template <class T, class G>
__global__ void __launch_bounds__(kThreads)
    Update(AdamwCompact a, float correct1, float correct2, float keep, bool wide) {
  __shared__ Values values;
  values.Fill();
  const AdamwOptions o = a.options;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const bool draws = a.m.codes || a.v.codes || !a.master;
  const int64_t blocks = (a.n + kMomentBlock - 1) / kMomentBlock;
  for (int64_t b = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; b < blocks;
       b += int64_t{gridDim.x} * kWarps) {
    const int64_t at = b * kMomentBlock + int64_t{lane} * kEach, count = a.n - at;
    const bool whole = wide && count >= kEach;
    float m[kEach], v[kEach], w[kEach];
    if (a.m.codes) {
      const auto codes = Load(a.m.codes + at, count, whole);
      const float scale = a.m.scales[b];
#pragma unroll
      for (int u = 0; u < kEach; ++u) m[u] = values.M(codes.x[u]) * scale;
    } else {
      const auto exact = Load(a.m.exact + at, count, whole);
#pragma unroll
      for (int u = 0; u < kEach; ++u) m[u] = exact.x[u];
    }
    if (a.v.codes) {
      const auto codes = Load(a.v.codes + at, count, whole);
      const float scale = a.v.scales[b];
#pragma unroll
      for (int u = 0; u < kEach; ++u) v[u] = values.of_v[codes.x[u]] * scale;
    } else {
      const auto exact = Load(a.v.exact + at, count, whole);
#pragma unroll
      for (int u = 0; u < kEach; ++u) v[u] = exact.x[u];
    }
    if (a.master) {
      const auto master = Load(a.master + at, count, whole);
#pragma unroll
      for (int u = 0; u < kEach; ++u) w[u] = master.x[u];
    } else {
      const auto weights = Load(static_cast<const T*>(a.param) + at, count, whole);
#pragma unroll
      for (int u = 0; u < kEach; ++u) w[u] = ToFloat(weights.x[u]);
    }
    const auto grad = Load(static_cast<const G*>(a.grad) + at, count, whole);
    float largest_m = 0, largest_v = 0;
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      const float g = ToFloat(grad.x[u]) * o.grad_scale;
      m[u] = o.beta1 * m[u] + (1.0f - o.beta1) * g;
      v[u] = o.beta2 * v[u] + (1.0f - o.beta2) * g * g;
      v[u] = FLT_MAX < v[u] ? FLT_MAX : v[u];
      w[u] = w[u] * keep -
             __fdividef(o.learning_rate * (m[u] * correct1), Root(v[u] * correct2) + o.eps);
      if (u >= count) m[u] = v[u] = 0;
      largest_m = fmaxf(largest_m, fabsf(m[u]));
      largest_v = fmaxf(largest_v, v[u]);
    }
    largest_m = WarpMax(largest_m);
    largest_v = WarpMax(largest_v);
    const float over_m = 1.0f / largest_m, over_v = 1.0f / largest_v;
    ElementDraws bits[kEach] = {};
    if (draws) {
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
      Store(a.master + at, master, count, whole);
    }
    if (a.param) {
      Few<kEach, T> weights;
#pragma unroll
      for (int u = 0; u < kEach; ++u) {
        weights.x[u] = FromFloat<T>(w[u]);
        if constexpr (sizeof(T) == sizeof(BFloat16)) {
          if (!a.master) weights.x[u] = RoundAtRandom(w[u], bits[u].of_weight);
        }
      }
      Store(static_cast<T*>(a.param) + at, weights, count, whole);
    }
    if (a.m.codes) {
      Few<kEach, uint8_t> codes;
#pragma unroll
      for (int u = 0; u < kEach; ++u)
        codes.x[u] = StoredM(m[u], Share(fabsf(m[u]), largest_m, over_m), bits[u].of_m);
      Store(a.m.codes + at, codes, count, whole);
      if (lane == 0) a.m.scales[b] = largest_m;
    } else {
      Few<kEach, float> exact;
#pragma unroll
      for (int u = 0; u < kEach; ++u) exact.x[u] = m[u];
      Store(a.m.exact + at, exact, count, whole);
    }
    if (a.v.codes) {
      Few<kEach, uint8_t> codes;
#pragma unroll
      for (int u = 0; u < kEach; ++u)
        codes.x[u] = StoredV(v[u], Share(v[u], largest_v, over_v), bits[u].of_v);
      Store(a.v.codes + at, codes, count, whole);
      if (lane == 0) a.v.scales[b] = largest_v;
    } else {
      Few<kEach, float> exact;
#pragma unroll
      for (int u = 0; u < kEach; ++u) exact.x[u] = v[u];
      Store(a.v.exact + at, exact, count, whole);
    }
  }
}

bool Aligned8(const void* p) { return reinterpret_cast<uintptr_t>(p) % 8 == 0; }

}  // namespace

void AdamwCompact::Cuda(const Launch& launch) const {
  PLUMB_CHECK(first % 2 == 0, "draws are made for two elements at a time");
  PLUMB_CHECK(master || launch.dtype == DType::kBFloat16, "weights that are their own masters");
  if (n == 0) return;
  const auto step = static_cast<double>(options.step);
  const auto correct1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(options.beta1), step)));
  const auto correct2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(options.beta2), step)));
  const float keep = decay ? 1.0f - options.learning_rate * options.weight_decay : 1.0f;
  const bool wide = Aligned16(param) && Aligned16(master) && Aligned16(grad) &&
                    Aligned16(m.exact) && Aligned16(v.exact) && Aligned8(m.codes) &&
                    Aligned8(v.codes);
  ForDType(launch.dtype, [&]<class T>(T) {
    ForDType(grad_dtype, [&]<class G>(G) {
      Update<T, G><<<Blocks(MomentBlocks(n), kWarps), kThreads, 0, StreamOf(launch)>>>(
          *this, correct1, correct2, keep, wide);
    });
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
