#include "kernels/device/recorded_work.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"

namespace plumb::kernels {
namespace {

TEST(RecordedWorkTest, TheCpuRefuses) {
  bool called = false;
  EXPECT_THROW(RecordedWork(Device::kCpu, [&] { called = true; }), Error);
  EXPECT_FALSE(called);
}

TEST(RecordedWorkCuda, IsDoneWhenItIsReplayedWithWhatTheMemoryHoldsThen) {
  if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: nothing was recorded";
  const OwnedStream stream(Device::Cuda(0));
  const HostMemory from = MakeHostMemory(stream, 64), to = MakeHostMemory(stream, 64);
  auto* source = reinterpret_cast<int32_t*>(from.get());
  auto* target = reinterpret_cast<int32_t*>(to.get());
  source[0] = 1, target[0] = 0;
  const RecordedWork work(stream, [&] { Copy(stream, target, source, 64); });
  stream.Synchronize();
  EXPECT_EQ(target[0], 0) << "recorded, not done";
  for (const int32_t value : {5, 6}) {
    source[0] = value;
    work.Replay();
    stream.Synchronize();
    EXPECT_EQ(target[0], value);
  }
}

TEST(RecordedWorkCuda, WhatThrowsLeavesTheStreamUsable) {
  if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: nothing was recorded";
  const OwnedStream stream(Device::Cuda(0));
  EXPECT_THROW(RecordedWork(stream, [] { throw std::runtime_error("no"); }), std::runtime_error);
  EXPECT_FALSE(stream.capturing());
  stream.Synchronize();
}

}  // namespace
}  // namespace plumb::kernels
