#include "kernels/device/cuda_common.h"
#include "kernels/update/narrow_gradients.h"
#include "kernels/update/narrow_sum.h"

namespace plumb::kernels {
namespace {

// Eight elements a thread.
template <bool Wide>
__global__ void Join(const float* room, BFloat16* sum, int64_t n, uint64_t seed, uint32_t draw,
                     int64_t first) {
  for (int64_t at = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kNarrowDraws; at < n;
       at += int64_t{gridDim.x} * blockDim.x * kNarrowDraws) {
    const int64_t count = n - at;
    const bool whole = Wide && count >= kNarrowDraws;
    Pack<BFloat16> kept = {};
    float more[kNarrowDraws] = {};
    if (whole) {
      kept = LoadPack(sum + at);
      const Pack<float> low = LoadPack(room + at), high = LoadPack(room + at + 4);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        more[u] = low.x[u];
        more[u + 4] = high.x[u];
      }
    } else {
#pragma unroll
      for (int u = 0; u < kNarrowDraws; ++u) {
        if (u >= count) continue;
        kept.x[u] = sum[at + u];
        more[u] = room[at + u];
      }
    }
    const Random4 drawn = NarrowDraw(seed, first + at, draw);
#pragma unroll
    for (int u = 0; u < kNarrowDraws; ++u)
      kept.x[u] = NarrowSum(kept.x[u], more[u], drawn.x[u / 2] >> (16 * (u % 2)));
    if (whole) {
      StorePack(sum + at, kept);
    } else {
#pragma unroll
      for (int u = 0; u < kNarrowDraws; ++u) {
        if (u >= count) continue;
        sum[at + u] = kept.x[u];
      }
    }
  }
}

}  // namespace

void NarrowGradients::Cuda(const Launch& launch) const {
  PLUMB_CHECK(first % kNarrowDraws == 0, "draws are made for eight elements at a time");
  if (n == 0) return;
  const auto kernel = Aligned16(room) && Aligned16(sum) ? Join<true> : Join<false>;
  kernel<<<Blocks(n, 256 * kNarrowDraws), 256, 0, StreamOf(launch)>>>(room, sum, n, seed, draw,
                                                                      first);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
