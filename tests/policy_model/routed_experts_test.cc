#include "policy_model/routed_experts.h"

#include <gtest/gtest.h>

#include <vector>

#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {
namespace {

Routing OfTwoLayers() {
  Routing routing;
  routing.load.resize(2);
  return routing;
}

TEST(RoutedExpertsTest, OnTheCpuStagesReadAndWriteInPlace) {
  Routing routing = OfTwoLayers();
  RoutedExperts routed(Device::kCpu);
  const std::vector<int32_t> told = {0, 1, 2, 3, -1, 0, 4, 5, 0, 1, 0, 1};
  routed.Begin(routing, told, 3, 2);
  EXPECT_EQ(routing.given, told.data());
  ASSERT_EQ(routing.taken.size(), told.size());
  routing.taken[11] = 7;
  EXPECT_EQ(routed.taken(routing)[11], 7);
  EXPECT_EQ(routed.taken(routing).size(), told.size());
  routed.Begin(routing, {}, 1, 2);
  EXPECT_EQ(routing.given, nullptr);
  EXPECT_EQ(routed.taken(routing).size(), 4u);
  int32_t place[4];
  routed.BeginStep(routing, place);
  EXPECT_EQ(routing.taken_there, nullptr) << "nothing travels";
  routed.EndStep(routing);
}

TEST(RoutedExpertsTest, OnAGpuWhatAStepTookComesBack) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: nothing travelled to one here";
  const OwnedStream stream(Device::Cuda(0));
  Routing routing = OfTwoLayers();
  RoutedExperts routed(stream);
  const std::vector<int32_t> told = {0, 1, 2, 3};
  routed.Begin(routing, told, 1, 2);
  ASSERT_NE(routing.given, nullptr);
  std::vector<int32_t> back(4);
  kernels::CopyAndWait(stream, back.data(), routing.given, 16);
  EXPECT_EQ(back, told);
  EXPECT_EQ(routing.given_here, told.data());
  for (const int32_t rows : {1, 3, 2}) {
    std::vector<int32_t> took;
    for (int32_t i = 0; i < rows * 4; ++i) took.push_back(rows * 100 + i);
    FlatBuffer there(stream, DType::kInt32, rows * 4);
    there.CopyFromHost(std::as_bytes(std::span<const int32_t>(took)));
    routed.Begin(routing, {}, rows, 2);
    EXPECT_EQ(routing.given, nullptr);
    routed.BeginStep(routing, there.data());
    routed.EndStep(routing);
    stream.Synchronize();
    const auto got = routed.taken(routing);
    ASSERT_GE(got.size(), took.size());
    EXPECT_EQ(std::vector<int32_t>(got.begin(), got.begin() + rows * 4), took);
  }
}

}  // namespace
}  // namespace plumb::policy_model
