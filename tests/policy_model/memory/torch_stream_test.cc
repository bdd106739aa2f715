#include "policy_model/memory/torch_stream.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "policy_model/memory/flat_buffer.h"
#ifdef PLUMB_CUDA
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace plumb::policy_model {
namespace {

TEST(TorchStreamTest, LibTorchGetsTheOrdinal) {
  EXPECT_TRUE(TorchDevice(Device::kCpu).is_cpu());
  EXPECT_EQ(TorchDevice(Device::Cuda(1)), at::Device(at::kCUDA, 1));
  const OnStream on(Device::kCpu);  // nothing to change there
  EXPECT_EQ(at::ones({3}).sum().item<float>(), 3.0f);
}

#ifdef PLUMB_CUDA
TEST(TorchStreamCuda, LibTorchRunsOnTheStreamAndGoesBack) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: LibTorch on a stream was NOT tested here";
  const OwnedStream stream(Device::Cuda(0)), other(Device::Cuda(0));
  const auto current = [] {
    return static_cast<void*>(c10::cuda::getCurrentCUDAStream(0).stream());
  };
  void* before = current();
  {
    const OnStream on(stream);
    EXPECT_EQ(current(), stream.handle());
    {
      const OnStream inner(other);
      EXPECT_EQ(current(), other.handle());
    }
    EXPECT_EQ(current(), stream.handle());
  }
  EXPECT_EQ(current(), before);
}

TEST(TorchStreamCuda, MemoryIsNotTakenWhileAStepIsCaptured) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: capture was NOT tested here";
  const OwnedStream stream(Device::Cuda(0));
  const FlatBuffer before(stream, DType::kFloat32, 10);
  const auto cuda_stream = static_cast<cudaStream_t>(stream.handle());
  ASSERT_EQ(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_TRUE(stream.capturing());
  try {
    const FlatBuffer buffer(stream, DType::kFloat32, 10);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(e.message().find("run it once before"), std::string::npos) << e.message();
  }
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(cuda_stream, &graph), cudaSuccess)
      << "nothing was done that a graph cannot hold";
  if (graph != nullptr) cudaGraphDestroy(graph);
  EXPECT_FALSE(stream.capturing());
}
#endif

}  // namespace
}  // namespace plumb::policy_model
