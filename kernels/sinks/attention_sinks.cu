#include "kernels/device/cuda_common.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::kernels {
namespace {

// One warp a head of a token.
template <class T>
__global__ void Forward(AttentionSinks k) {
  const int64_t at = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (at >= k.tokens * k.heads) return;
  const int64_t t = at / k.heads;
  const auto h = static_cast<int32_t>(at - t * k.heads);
  const int lane = static_cast<int>(threadIdx.x % 32);
  float* place = k.lse + LsePlace(k.layout, h, k.heads, t, k.tokens);
  const float sink = ToFloat(static_cast<const T*>(k.sinks)[h]), lse = *place;
  const float most = fmaxf(lse, sink), all = most + logf(expf(lse - most) + expf(sink - most)),
              share = expf(lse - all);
  T* out = static_cast<T*>(k.out) + at * k.head_dim;
  for (int32_t i = lane; i < k.head_dim; i += 32) out[i] = FromFloat<T>(ToFloat(out[i]) * share);
  __syncwarp();
  if (lane == 0) *place = all;
}

// One block a head: a warp takes every token of its turn, and the block adds up.
template <class T>
__global__ void Backward(AttentionSinksBackward k) {
  const auto h = static_cast<int32_t>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x % 32), warps = static_cast<int>(blockDim.x / 32);
  const float sink = ToFloat(static_cast<const T*>(k.sinks)[h]);
  double sum = 0;
  for (int64_t t = threadIdx.x / 32; t < k.tokens; t += warps) {
    const int64_t at = (t * k.heads + h) * k.head_dim;
    const T *dout = static_cast<const T*>(k.dout) + at, *out = static_cast<const T*>(k.out) + at;
    float both = 0;
    for (int32_t i = lane; i < k.head_dim; i += 32) both += ToFloat(dout[i]) * ToFloat(out[i]);
    both = WarpSum(both);
    const float lse = k.lse[LsePlace(k.layout, h, k.heads, t, k.tokens)];
    if (lane == 0) sum += static_cast<double>(expf(sink - lse) * both);
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) k.dsinks[h] -= static_cast<float>(sum);
}

}  // namespace

void AttentionSinks::Cuda(const Launch& launch) const {
  if (tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T>
        <<<static_cast<unsigned>((tokens * heads + 7) / 8), 256, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void AttentionSinksBackward::Cuda(const Launch& launch) const {
  if (tokens == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward<T><<<static_cast<unsigned>(heads), 1024, 0, StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
