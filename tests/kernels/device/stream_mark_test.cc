#include "kernels/device/stream_mark.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "kernels/device/device_memory.h"

namespace plumb::kernels {
namespace {

TEST(StreamMarkTest, OnTheCpuThereIsNothingToWaitFor) {
  StreamMark mark(Device::kCpu);
  mark.Set(Device::kCpu);
  mark.LetWait(Device::kCpu);
  StreamMark other = std::move(mark);
  other.LetWait(Device::kCpu);
}

TEST(StreamMarkTest, AStreamOfAGpuWaitsForTheOther) {
  if (!CudaAvailable()) GTEST_SKIP() << "no GPU";
  const OwnedStream first(Device::Cuda(0)), second(Device::Cuda(0));
  constexpr size_t kBytes = 64 << 20;
  const HostMemory from = MakeHostMemory(first, kBytes), to = MakeHostMemory(first, kBytes);
  for (size_t i = 0; i < kBytes; ++i) from.get()[i] = static_cast<std::byte>(i);
  const HostMemory between = MakeHostMemory(first, kBytes);
  StreamMark mark(Device::Cuda(0));
  Copy(first, between.get(), from.get(), kBytes);
  mark.Set(first);
  mark.LetWait(second);
  Copy(second, to.get(), between.get(), kBytes);
  second.Synchronize();
  EXPECT_EQ(to.get()[kBytes - 1], from.get()[kBytes - 1]);
}

}  // namespace
}  // namespace plumb::kernels
