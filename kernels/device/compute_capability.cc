#include "kernels/device/compute_capability.h"

#include "common/base/error.h"
#include "kernels/device/launch.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb::kernels {

int ComputeCapability(Device device) {
  PLUMB_CHECK(device.is_cuda());
#ifdef PLUMB_CUDA
  int major = 0, minor = 0;
  CheckCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.ordinal),
            "to ask what a GPU can do");
  CheckCuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.ordinal),
            "to ask what a GPU can do");
  return 10 * major + minor;
#else
  NoCuda("ComputeCapability");
#endif
}

}  // namespace plumb::kernels
