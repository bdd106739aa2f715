#include "common/base/rng.h"
#include "kernels/device/cuda_common.h"
#include "kernels/dropout.h"

namespace plumb::kernels {
namespace {

// Four columns a thread: those of one draw.
template <class T>
__global__ void Drop(Dropout d, uint32_t below, float scale) {
  const int64_t fours = (d.columns + 3) / 4;
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < d.rows * fours;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t r = at / fours, c = (at - r * fours) * 4;
    const Random4 bits =
        RandomAt(d.key, d.layer, static_cast<uint32_t>(r), static_cast<uint32_t>(c / 4));
    const T* from = static_cast<const T*>(d.x) + r * d.columns + c;
    T* to = static_cast<T*>(d.out) + r * d.columns + c;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (c + i >= d.columns) break;
      const float kept = bits.x[i] < below ? 0.0f : scale * ToFloat(from[i]);
      to[i] = FromFloat<T>(d.accumulate ? ToFloat(to[i]) + kept : kept);
    }
  }
}

}  // namespace

void Dropout::Cuda(const Launch& launch) const {
  if (rows * columns == 0) return;
  const auto below = static_cast<uint32_t>(static_cast<double>(probability) * 4294967296.0);
  ForDType(launch.dtype, [&]<class T>(T) {
    Drop<T><<<Blocks(rows * ((columns + 3) / 4), 256), 256, 0, StreamOf(launch)>>>(
        *this, below, 1 / (1 - probability));
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
