#include "kernels/sparse/key_fold.h"
#include "kernels/sparse/table_attention.h"

namespace plumb::kernels {
namespace {

constexpr int kWarps = 8;  // of a block

// One block: one head of one row. Every kWarps-th entry is a warp's; warps are merged in their
// order, behind what attention has given.
template <class T, int E>
__global__ void __launch_bounds__(kWarps * 32) Forward(TableAttention k) {
  __shared__ float warp_top[kWarps], warp_sum[kWarps];
  extern __shared__ float warp_mix[];  // [kWarps][d]
  const TableShape& s = k.shape;
  const int32_t d = s.head_dim;
  const int64_t r = blockIdx.x;
  const auto h = static_cast<int32_t>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t at = (r * s.heads + h) * d;
  float query[E];
  LoadLanes<E>(static_cast<const T*>(k.q) + at, d, s.scale, query);
  KeyFold<E, 1> fold;
  for (int64_t n = warp; n < s.entries; n += kWarps) {
    float key[E], value[E];
    LoadLanes<E>(s.keys + n * d, d, 1.0f, key);
    LoadLanes<E>(s.values + n * d, d, 1.0f, value);
    fold.Add(0, DotLanes(query, key), value);
  }
  if (lane == 0) {
    warp_top[warp] = fold.top[0];
    warp_sum[warp] = fold.sum[0];
  }
  float* place = k.lse + LsePlace(k.layout, h, s.heads, r, s.rows);
  const float lse = *place;
  __syncthreads();
  float most = lse;
  for (int w = 0; w < kWarps; ++w) most = fmaxf(most, warp_top[w]);
  const float rescale = expf(fold.top[0] - most);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (lane + 32 * e < d) warp_mix[warp * d + lane + 32 * e] = fold.mix[0][e] * rescale;
  }
  __syncthreads();
  const float of_sequence = expf(lse - most);
  float total = of_sequence;
  for (int w = 0; w < kWarps; ++w) total += warp_sum[w] * expf(warp_top[w] - most);
  T* out = static_cast<T*>(k.out) + at;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kWarps * 32) {
    float a = of_sequence * ToFloat(out[i]);
    for (int w = 0; w < kWarps; ++w) a += warp_mix[w * d + i];
    out[i] = FromFloat<T>(a / total);
  }
  if (threadIdx.x == 0) *place = most + logf(total);
}

template <class T, int E>
__global__ void __launch_bounds__(kWarps * 32) Backward(TableAttentionBackward k) {
  extern __shared__ float warp_dq[];  // [kWarps][d]
  const TableShape& s = k.shape;
  const int32_t d = s.head_dim;
  const int64_t r = blockIdx.x;
  const auto h = static_cast<int32_t>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t at = (r * s.heads + h) * d;
  float query[E], dout[E], out[E], sum[E] = {};
  LoadLanes<E>(static_cast<const T*>(k.q) + at, d, s.scale, query);
  LoadLanes<E>(static_cast<const T*>(k.dout) + at, d, 1.0f, dout);
  LoadLanes<E>(static_cast<const T*>(k.out) + at, d, 1.0f, out);
  const float delta = DotLanes(dout, out), lse = k.lse[LsePlace(k.layout, h, s.heads, r, s.rows)];
  for (int64_t n = warp; n < s.entries; n += kWarps) {
    float key[E], value[E];
    LoadLanes<E>(s.keys + n * d, d, 1.0f, key);
    LoadLanes<E>(s.values + n * d, d, 1.0f, value);
    const float ds = expf(DotLanes(query, key) - lse) * (DotLanes(dout, value) - delta);
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e] += ds * key[e];
  }
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (lane + 32 * e < d) warp_dq[warp * d + lane + 32 * e] = sum[e];
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < d; i += kWarps * 32) {
    float a = 0;
    for (int w = 0; w < kWarps; ++w) a += warp_dq[w * d + i];
    static_cast<T*>(k.dq)[at + i] = FromFloat<T>(a * s.scale);
  }
}

// Calls body(T{}, E, blocks, bytes of shared memory).
template <class Body>
void ForKernel(const Launch& launch, const TableShape& s, const Body& body) {
  const dim3 blocks(static_cast<unsigned>(s.rows), static_cast<unsigned>(s.heads));
  const size_t shared = sizeof(float) * kWarps * static_cast<size_t>(s.head_dim);
  ForDType(launch.dtype, [&]<class T>(T) {
    ForLanesOf(s.head_dim,
               [&]<int E>(std::integral_constant<int, E> e) { body(T{}, e, blocks, shared); });
  });
}

}  // namespace

void TableAttention::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForKernel(launch, shape,
            [&]<class T, int E>(T, std::integral_constant<int, E>, dim3 blocks, size_t shared) {
              Forward<T, E><<<blocks, kWarps * 32, shared, StreamOf(launch)>>>(*this);
            });
  CheckLaunch(kName);
}

void TableAttentionBackward::Cuda(const Launch& launch) const {
  if (shape.rows == 0) return;
  ForKernel(launch, shape,
            [&]<class T, int E>(T, std::integral_constant<int, E>, dim3 blocks, size_t shared) {
              Backward<T, E><<<blocks, kWarps * 32, shared, StreamOf(launch)>>>(*this);
            });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
