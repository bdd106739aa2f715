#include "kernels/device_memory.h"

#include <cuda_runtime.h>

namespace plumb::kernels {

int64_t DeviceBytesInUse() {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();  // a missing device must not surface at the next launch
    return 0;
  }
  return static_cast<int64_t>(total - free);
}

}  // namespace plumb::kernels
