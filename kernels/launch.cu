#include "kernels/launch.h"

#include <cuda_runtime.h>

namespace plumb::kernels {

bool CudaAvailable() {
  int devices = 0;
  const bool answers = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  if (!answers) cudaGetLastError();  // "no driver" must not surface at the next launch
  return answers;
}

}  // namespace plumb::kernels
