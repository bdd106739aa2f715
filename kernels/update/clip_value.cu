#include <cmath>

#include "kernels/device/cuda_common.h"
#include "kernels/update/clip_value.h"

namespace plumb::kernels {
namespace {

// One warp clips and counts piece p of kNormScratch.
template <class G>
__global__ void ClipPieces(G* grad, int64_t n, float most, double* scratch) {
  const int64_t p = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t end = n * (p + 1) / kNormScratch;
  double clipped = 0;
  for (int64_t i = n * p / kNormScratch + threadIdx.x % 32; i < end; i += 32) {
    const float g = ToFloat(grad[i]), size = fabsf(g);
    if (!(size > most) || isinf(size)) continue;
    grad[i] = FromFloat<G>(copysignf(most, g));
    clipped += 1;
  }
  clipped = WarpSum(clipped);
  if (threadIdx.x % 32 == 0) scratch[p] = clipped;
}

__global__ void SumCounts(const double* scratch, double* out) {
  double sum = 0;
  for (int64_t p = threadIdx.x; p < kNormScratch; p += blockDim.x) sum += scratch[p];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void ClipValue::Cuda(const Launch& launch) const {
  ForDType(grad_dtype, [&]<class G>(G) {
    ClipPieces<<<kNormScratch / 8, 256, 0, StreamOf(launch)>>>(
        static_cast<G*>(grad), n, ToFloat(FromFloat<G>(bound)), scratch);
  });
  CheckLaunch("ClipValue (pieces)");
  SumCounts<<<1, 1024, 0, StreamOf(launch)>>>(scratch, out);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
