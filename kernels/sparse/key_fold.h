// What attention over a list of keys is made of on CUDA: a warp's running maximum, sum and mix of
// values over the keys that it is given one by one (online softmax), for G queries at once.
//
// Lane l of a warp holds elements l, l + 32, ... of a head, E of them; those past the head are 0.
// Sums are taken in the order in which keys are given. Included by .cu files only. Thread safety:
// of its warp.
#pragma once

#include <type_traits>

#include "kernels/device/cuda_common.h"

namespace plumb::kernels {

template <int E, class T>
__device__ __forceinline__ void LoadLanes(const T* head, int32_t d, float scale, float (&x)[E]) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int32_t i = static_cast<int32_t>(threadIdx.x % 32) + 32 * e;
    x[e] = i < d ? ToFloat(head[i]) * scale : 0.0f;
  }
}

// On every lane.
template <int E>
__device__ __forceinline__ float DotLanes(const float (&a)[E], const float (&b)[E]) {
  float sum = 0;
#pragma unroll
  for (int e = 0; e < E; ++e) sum += a[e] * b[e];
  return WarpSum(sum);
}

// head[i] += x, rounded once.
template <int E, class T>
__device__ __forceinline__ void AddLanes(const float (&x)[E], int32_t d, T* head) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int32_t i = static_cast<int32_t>(threadIdx.x % 32) + 32 * e;
    if (i < d) head[i] = FromFloat<T>(ToFloat(head[i]) + x[e]);
  }
}

template <int E, int G>
struct KeyFold {
  float top[G], sum[G], mix[G][E];

  __device__ KeyFold() {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      top[g] = -INFINITY;
      sum[g] = 0;
#pragma unroll
      for (int e = 0; e < E; ++e) mix[g][e] = 0;
    }
  }

  // A key with this score for query g, the same on every lane. A score that is NaN makes all NaN.
  __device__ __forceinline__ void Add(int g, float score, const float (&value)[E]) {
    const float most = fmaxf(top[g], score);
    if (score == -INFINITY) return;  // it has no share
    const float rescale = expf(top[g] - most), weight = expf(score - most);
    top[g] = most;
    sum[g] = sum[g] * rescale + weight;
#pragma unroll
    for (int e = 0; e < E; ++e) mix[g][e] = mix[g][e] * rescale + weight * value[e];
  }
};

// Calls body(std::integral_constant<int, E>) with the least E that holds a head of d elements.
template <class Body>
void ForLanesOf(int32_t d, const Body& body) {
  if (d <= 32) body(std::integral_constant<int, 1>{});
  else if (d <= 64) body(std::integral_constant<int, 2>{});
  else if (d <= 128) body(std::integral_constant<int, 4>{});
  else if (d <= 256) body(std::integral_constant<int, 8>{});
  else if (d <= 640) body(std::integral_constant<int, 20>{});  // one latent to all heads: 576
  else if (d <= 1024) body(std::integral_constant<int, 32>{});
  else
    throw Error(ErrorCode::kUnsupported,
                "attention on CUDA: heads of " + std::to_string(d) + " elements are above 1024");
}

}  // namespace plumb::kernels
