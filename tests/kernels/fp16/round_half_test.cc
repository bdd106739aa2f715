// Rounding to float16 (kernels/fp16/round_half.h): the codes of half_codes.h, bit for bit on both
// devices, from any address and of any number of elements.
#include "kernels/fp16/round_half.h"

#include <chrono>
#include <limits>

#include "kernels/fp16/half_codes.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(RoundHalfTest);

// Of every size that float16 knows, and of some that it does not.
std::vector<float> OfAllSizes(size_t n, DType dtype) {
  std::vector<float> x = Normal(n, 3, dtype);
  for (size_t i = 0; i < n; ++i) x[i] *= std::exp2f(static_cast<float>(i % 48) - 30);
  return x;
}

TEST_P(RoundHalfTest, CodesAndValuesAreTheDefinition) {
  for (const size_t n : {1u, 7u, 8u, 9u, 64u, 4099u, 70001u}) {
    for (const size_t skip : {0u, 1u}) {  // the first element's address
      const std::vector<float> x = OfAllSizes(n + skip, dtype());
      Tensor in(GetParam(), x);
      Array<uint16_t> code(device(), n + skip);
      Array<float> value(device(), n + skip);
      const void* const from = static_cast<std::byte*>(in.data()) + skip * ElementSize(dtype());
      Call(launch(), RoundToHalf{.x = from,
                                 .n = static_cast<int64_t>(n),
                                 .code = code.data() + skip,
                                 .value = value.data() + skip});
      launch().stream.Synchronize();
      const std::vector<uint16_t> codes = code.Host();
      const std::vector<float> values = value.Host();
      for (size_t i = skip; i < n + skip; ++i) {
        ASSERT_EQ(codes[i], HalfCode(x[i])) << n << " element " << i << " of " << x[i];
        ASSERT_EQ(BitsOf(values[i]), BitsOf(HalfValue(codes[i]))) << n << " element " << i;
      }
      if (skip > 0) {
        EXPECT_EQ(codes[0], 0xFFFF) << "not its to write";
      }
    }
  }
}

TEST_P(RoundHalfTest, EitherMayBeLeftOut) {
  const std::vector<float> x = OfAllSizes(1003, dtype());
  Tensor in(GetParam(), x);
  Array<uint16_t> code(device(), x.size());
  Array<float> value(device(), x.size());
  const auto n = static_cast<int64_t>(x.size());
  Call(launch(), RoundToHalf{.x = in.data(), .n = n, .code = code.data()});
  Call(launch(), RoundToHalf{.x = in.data(), .n = n, .value = value.data()});
  launch().stream.Synchronize();
  const std::vector<uint16_t> codes = code.Host();
  const std::vector<float> values = value.Host();
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(codes[i], HalfCode(x[i]));
    ASSERT_EQ(values[i], HalfValue(codes[i]));
  }
}

TEST_P(RoundHalfTest, WhatIsNotFiniteShows) {
  std::vector<float> x(40, 1.0f);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[17] = -std::numeric_limits<float>::infinity();
  x[33] = 1e6f;
  Tensor in(GetParam(), x);
  Array<float> value(device(), x.size());
  Call(launch(), RoundToHalf{.x = in.data(), .n = 40, .value = value.data()});
  launch().stream.Synchronize();
  const std::vector<float> values = value.Host();
  EXPECT_TRUE(std::isnan(values[3]));
  EXPECT_EQ(values[17], -std::numeric_limits<float>::infinity());
  EXPECT_EQ(values[33], std::numeric_limits<float>::infinity());
  EXPECT_EQ(values[16], 1.0f);
}

TEST(RoundHalfCuda, ItsBandwidthIsPrinted) {
  if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: rounding to float16 was NOT timed here";
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Target target{Device::Cuda(0), dtype};
    const Launch launch{.stream = TestStream(target.device), .dtype = dtype};
    constexpr size_t kN = size_t{1} << 27;
    Tensor x(target, kN);
    Array<uint16_t> code(target.device, kN);
    const RoundToHalf kernel{.x = x.data(), .n = int64_t{kN}, .code = code.data()};
    Call(launch, kernel);
    launch.stream.Synchronize();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) Call(launch, kernel);
    launch.stream.Synchronize();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 20;
    std::printf("%s to float16: %.3f ms, %.0f GB/s read and written\n",
                dtype == DType::kFloat32 ? "float32" : "bfloat16", 1e3 * seconds,
                static_cast<double>(kN * (ElementSize(dtype) + 2)) / seconds / 1e9);
    EXPECT_LT(seconds, 5e-3);
  }
}

}  // namespace
}  // namespace plumb::kernels
