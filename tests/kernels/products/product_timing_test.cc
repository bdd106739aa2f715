#include "kernels/products/product_timing.h"

#include <set>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class ProductTimingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: what timing products needs was NOT tested here";
  }
};

#ifdef PLUMB_CUDA
TEST_F(ProductTimingTest, EveryBitAndItsPlaceChangeTheNumber) {
  const Device device = Device::Cuda(0);
  const Launch launch{.stream = TestStream(device)};
  const auto number = [&](const std::vector<uint16_t>& values) {
    Array<uint16_t> y(device, values);
    Array<uint64_t> sum(device, std::vector<uint64_t>{0});
    AddBitsOf(launch, y.data(), static_cast<int64_t>(2 * values.size()), sum.data());
    return sum.Host()[0];
  };
  std::vector<uint16_t> values(5000, 7);
  std::set<uint64_t> seen = {number(values)};
  EXPECT_EQ(number(values), *seen.begin());
  for (const size_t at : {size_t{0}, size_t{1}, size_t{2500}, size_t{4999}}) {
    for (int bit = 0; bit < 16; ++bit) {
      values[at] = static_cast<uint16_t>(values[at] ^ (1 << bit));
      EXPECT_TRUE(seen.insert(number(values)).second) << at << ", bit " << bit;
      values[at] = static_cast<uint16_t>(values[at] ^ (1 << bit));
    }
  }
}

TEST_F(ProductTimingTest, ValuesAreSpreadAndOfTheirSeed) {
  const Device device = Device::Cuda(0);
  const Launch launch{.stream = TestStream(device)};
  Array<float> a(device, 10000), b(device, 10000);
  FillForTiming(launch, a.data(), 10000, 1);
  FillForTiming(launch, b.data(), 10000, 2);
  double mean = 0, square = 0;
  int same = 0;
  const auto first = a.Host(), second = b.Host();
  for (size_t i = 0; i < first.size(); ++i) {
    ASSERT_GE(first[i], -1.0f);
    ASSERT_LT(first[i], 1.0f);
    mean += first[i] / 1e4, square += first[i] * first[i] / 1e4;
    same += first[i] == second[i] ? 1 : 0;
  }
  EXPECT_NEAR(mean, 0, 0.05);  // nine standard errors of 0.0058
  EXPECT_NEAR(square, 1.0 / 3, 0.03);
  EXPECT_LT(same, 10);
  KeepBusy(launch, 1000);
  launch.stream.Synchronize();
}
#else
TEST_F(ProductTimingTest, NeedsAGpu) {}
#endif

}  // namespace
}  // namespace plumb::kernels
