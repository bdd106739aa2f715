#include "kernels/device/device_memory.h"

#include <gtest/gtest.h>

#include "kernels/device/launch.h"

namespace plumb::kernels {
namespace {

TEST(DeviceMemoryTest, IsInUseExactlyWhereThereIsADevice) {
  EXPECT_EQ(DeviceBytesInUse(Device::Cuda(0)) > 0, CudaAvailable())
      << "a context of its own takes memory";
}

}  // namespace
}  // namespace plumb::kernels
