#include "kernels/device/cuda_common.h"
#include "kernels/update/zero_ranges.h"

namespace plumb::kernels {
namespace {

// One block a run.
__global__ void Zeros(float* data, const ZeroRange* ranges) {
  const ZeroRange of = ranges[blockIdx.x];
  for (int64_t i = threadIdx.x; i < of.n; i += blockDim.x) data[of.at + i] = 0.0f;
}

}  // namespace

void ZeroRanges::Cuda(const Launch& launch) const {
  if (count == 0) return;
  Zeros<<<static_cast<unsigned>(count), 256, 0, StreamOf(launch)>>>(data, ranges);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
