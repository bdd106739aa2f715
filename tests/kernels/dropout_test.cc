#include "kernels/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kRows = 64, kColumns = 131;

std::vector<float> Dropped(Dropout how, float value = 1) {
  const std::vector<float> x(static_cast<size_t>(how.rows * how.columns), value);
  std::vector<float> out(x.size(), 0);
  how.x = x.data();
  how.out = out.data();
  Call({}, how);
  return out;
}

Dropout Of(float probability, uint64_t key = 3, uint64_t layer = 64) {
  return {
      .rows = kRows, .columns = kColumns, .probability = probability, .key = key, .layer = layer};
}

TEST(DropoutTest, DropsTheShareAndKeepsTheMean) {
  for (const float p : {0.1f, 0.5f, 0.9f}) {
    double dropped = 0, sum = 0;
    for (const float v : Dropped(Of(p), 2)) {
      dropped += v == 0;
      sum += static_cast<double>(v);
      if (v != 0) {
        EXPECT_FLOAT_EQ(v, 2 / (1 - p));
      }
    }
    const double n = kRows * kColumns, deviation = std::sqrt(n * p * (1 - p));
    EXPECT_NEAR(dropped, n * p, 4 * deviation) << p;
    EXPECT_NEAR(sum, 2 * n, 4 * 2 / (1 - p) * deviation) << p;
  }
  for (const float v : Dropped(Of(0), 2)) EXPECT_EQ(v, 2);
}

TEST(DropoutTest, AMaskIsThatOfItsAddress) {
  const auto mask = Dropped(Of(0.5f));
  EXPECT_EQ(Dropped(Of(0.5f)), mask);
  EXPECT_NE(Dropped(Of(0.5f, 4)), mask);
  EXPECT_NE(Dropped(Of(0.5f, 3, 128)), mask);
  // A row's does not depend on how many there are.
  Dropout fewer = Of(0.5f);
  fewer.rows = 5;
  const auto first = Dropped(fewer);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), mask.begin()));
  EXPECT_FALSE(std::equal(mask.begin(), mask.begin() + kColumns, mask.begin() + kColumns));
}

TEST(DropoutTest, AGpuDropsWhatTheCpuDrops) {
  if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: dropout was NOT tested on CUDA here";
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool accumulate : {false, true}) {
      const auto x = Normal(kRows * kColumns, 1, dtype), before = Normal(x.size(), 2, dtype);
      std::vector<float> of[2];
      for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
        Tensor from({device, dtype}, x), to({device, dtype}, before);
        Dropout how = Of(0.3f, uint64_t{1} << 40 | 7);
        how.x = from.data(), how.out = to.data(), how.accumulate = accumulate;
        Call({.stream = TestStream(device), .dtype = dtype}, how);
        of[device.is_cuda()] = to.Host();
      }
      // A product that is fused with the sum is rounded once.
      ExpectClose(of[1], ToDouble(of[0]), 2 * OutputRounding(dtype), 4 * kEps, "dropped");
    }
  }
}

TEST(DropoutTest, AddsAndRoundsWhereItIsAsked) {
  Dropout add = Of(0.25f);
  const auto mask = Dropped(add);
  const std::vector<float> x(mask.size(), 3);
  std::vector<float> out(mask.size(), 10);
  add.x = x.data();
  add.out = out.data();
  add.accumulate = true;
  Call({}, add);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_FLOAT_EQ(out[i], 10 + 3 * mask[i]);

  std::vector<BFloat16> narrow(mask.size(), ToBFloat16(3));
  Dropout in_place = Of(0.25f);
  in_place.x = narrow.data();
  in_place.out = narrow.data();
  Call({.dtype = DType::kBFloat16}, in_place);
  for (size_t i = 0; i < narrow.size(); ++i)
    EXPECT_EQ(ToFloat(narrow[i]), mask[i] == 0 ? 0.0f : 4.0f);
}

}  // namespace
}  // namespace plumb::kernels
