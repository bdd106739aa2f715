#include "common/base/device.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(DeviceTest, NamesAreReadAndWritten) {
  EXPECT_EQ(ParseDevice("cpu"), Device(Device::kCpu));
  EXPECT_EQ(ParseDevice("cuda"), Device::Cuda(0)) << "the first GPU";
  EXPECT_EQ(ParseDevice("cuda:0"), Device::Cuda(0));
  EXPECT_EQ(ParseDevice("cuda:11"), Device::Cuda(11));
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0), Device::Cuda(3)}) {
    EXPECT_EQ(ParseDevice(DeviceName(device)), device);
  }
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:-1", "cuda: 1", "cuda:1x", "cuda1", "CUDA",
                            "cpu:0", "cuda:99999", "cuda:99999999999999999999"}) {
    EXPECT_FALSE(ParseDevice(wrong).has_value()) << wrong;
  }
}

TEST(DeviceTest, TwoGpusAreTwoDevices) {
  EXPECT_NE(Device::Cuda(0), Device::Cuda(1));
  EXPECT_NE(Device::Cuda(0), Device::kCpu);
  EXPECT_EQ(Device(), Device::kCpu);
}

}  // namespace
}  // namespace plumb
