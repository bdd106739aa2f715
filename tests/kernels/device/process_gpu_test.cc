#include "kernels/device/process_gpu.h"

#include <gtest/gtest.h>

namespace plumb::kernels {
namespace {

TEST(ProcessGpuTest, CountsInThePlaceOfTheRecipesNumberOnGpusOnly) {
  EXPECT_EQ(OfThisProcess(Device::Cuda(2)), Device::Cuda(2));
  UseGpu(1);
  EXPECT_EQ(OfThisProcess(Device::Cuda(0)), Device::Cuda(1));
  EXPECT_EQ(OfThisProcess(Device::kCpu), Device(Device::kCpu));
}

}  // namespace
}  // namespace plumb::kernels
