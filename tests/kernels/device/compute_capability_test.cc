#include "kernels/device/compute_capability.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "kernels/device/stream.h"

namespace plumb::kernels {
namespace {

TEST(ComputeCapabilityTest, IsThatOfAGpuThatIsHere) {
  if (!CudaAvailable()) {
    EXPECT_THROW(ComputeCapability(Device::Cuda(0)), Error);
    return;
  }
  EXPECT_GE(ComputeCapability(Device::Cuda(0)), 50);
  EXPECT_LT(ComputeCapability(Device::Cuda(0)), 1000);
}

}  // namespace
}  // namespace plumb::kernels
