#include "kernels/device/stream.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::kernels {
namespace {

TEST(StreamTest, OnTheCpuThereIsNothingToCreateAndCallsAreDone) {
  const Stream stream = Device::kCpu;
  EXPECT_EQ(stream.device(), Device::kCpu);
  EXPECT_EQ(stream.handle(), nullptr);
  EXPECT_FALSE(stream.capturing());
  const OwnedStream owned(Device::kCpu);
  int from = 7, to = 0;
  Copy(owned, &to, &from, sizeof to);
  EXPECT_EQ(to, 7);
  Zero(owned, &to, sizeof to);
  EXPECT_EQ(to, 0);
  owned.Synchronize();
}

std::string WhyNot(Device device, int there) {
  try {
    CheckDevice(device, "run.device", there);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(e.where(), "run.device");
    return e.message();
  }
  return "";
}

TEST(StreamTest, AGpuThatIsNotThereIsSaidWithHowManyThereAre) {
  EXPECT_EQ(WhyNot(Device::kCpu, 0), "");
  EXPECT_EQ(WhyNot(Device::Cuda(1), 2), "");
  EXPECT_EQ(WhyNot(Device::Cuda(2), 2),
            "\"cuda:2\" is not here: this machine has 2 GPUs, cuda:0 to cuda:1");
  EXPECT_EQ(WhyNot(Device::Cuda(1), 1), "\"cuda:1\" is not here: this machine has 1 GPU, cuda:0");
  EXPECT_NE(WhyNot(Device::Cuda(0), 0).find("the CPU"), std::string::npos) << "what to do";
  EXPECT_THROW(OwnedStream(Device::Cuda(CudaDevices())), Error);
}

#ifdef PLUMB_CUDA
class StreamCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: streams of one were NOT tested here";
  }
};

TEST_F(StreamCuda, EachRoleHasOneOfItsOwnAndNoneIsTheDefault) {
  const OwnedStream a(Device::Cuda(0)), b(Device::Cuda(0));
  EXPECT_NE(a.handle(), nullptr);
  EXPECT_NE(a.handle(), b.handle());
  unsigned flags = 0;
  ASSERT_EQ(cudaStreamGetFlags(static_cast<cudaStream_t>(a.handle()), &flags), cudaSuccess);
  EXPECT_EQ(flags, cudaStreamNonBlocking) << "the legacy default stream would hold it up";
}

TEST_F(StreamCuda, AMovedStreamIsOwnedOnce) {
  OwnedStream a(Device::Cuda(0));
  void* handle = a.handle();
  OwnedStream b = std::move(a);
  EXPECT_EQ(b.handle(), handle);
  OwnedStream c{Device::kCpu};
  c = std::move(b);
  EXPECT_EQ(c.handle(), handle);
  EXPECT_EQ(c.device(), Device::Cuda(0));
}

TEST_F(StreamCuda, CopiesGoThroughThePageLockedHost) {
  const OwnedStream stream(Device::Cuda(0));
  constexpr size_t kBytes = 100'000;
  const HostMemory in = MakeHostMemory(stream, kBytes), out = MakeHostMemory(stream, kBytes);
  EXPECT_EQ(in.get()[kBytes - 1], std::byte{0});
  for (size_t i = 0; i < kBytes; ++i) in.get()[i] = static_cast<std::byte>(i * 7);
  void* device = nullptr;
  ASSERT_EQ(cudaMalloc(&device, kBytes), cudaSuccess);
  Copy(stream, device, in.get(), kBytes);
  Zero(stream, static_cast<std::byte*>(device) + 10, 5);
  Copy(stream, out.get(), device, kBytes);
  stream.Synchronize();
  cudaFree(device);
  for (size_t i = 0; i < kBytes; ++i) {
    ASSERT_EQ(out.get()[i], i >= 10 && i < 15 ? std::byte{0} : static_cast<std::byte>(i * 7)) << i;
  }
}

TEST_F(StreamCuda, TheCurrentDeviceIsPutBack) {
  int before = -1, after = -1;
  cudaGetDevice(&before);
  { const OnDevice there(Device::Cuda(CudaDevices() - 1)); }
  cudaGetDevice(&after);
  EXPECT_EQ(before, after);
}
#endif

}  // namespace
}  // namespace plumb::kernels
