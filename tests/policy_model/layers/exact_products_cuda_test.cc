// run.exact where models meet it: the products of ops.h on a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/rng.h"
#include "kernels/device/stream.h"
#include "kernels/products/row_product.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kMost = 512;

class ExactProductsCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable())
      GTEST_SKIP() << "NO GPU: exact products were NOT tested here (build with -DPLUMB_CUDA=ON on "
                      "a machine with a GPU)";
    stream_ = OwnedStream(Device::Cuda(0));
  }
  void TearDown() override { kernels::SetExactProducts(true); }

  FlatBuffer Drawn(int64_t count, uint64_t seed, DType dtype) {
    RandomStream random(5, seed);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = random.NextNormal();
    FlatBuffer out(stream_, dtype, count);
    std::vector<std::byte> bytes(out.bytes());
    ConvertFloat(values, dtype, bytes.data());
    out.CopyFromHost(bytes);
    return out;
  }

  // y of the last m rows of x by each of the four forms, onto ones where it accumulates.
  std::vector<std::vector<std::byte>> Products(DType dtype, const FlatBuffer& x,
                                               const FlatBuffer& w, int64_t m, int64_t n,
                                               int64_t k) {
    const kernels::Launch launch{.stream = stream_, .dtype = dtype};
    const void* rows = x.at((kMost - m) * k);
    std::vector<std::vector<std::byte>> all;
    for (const bool accumulate : {false, true}) {
      for (const auto product : {ops::Linear, ops::LinearRows}) {
        FlatBuffer y(stream_, dtype, m * n);
        product(launch, rows, w.data(), m, n, k, accumulate, y.data());
        all.emplace_back(y.bytes());
        y.CopyToHost(all.back());
      }
    }
    for (const auto product : {ops::LinearToFloat, ops::LinearRowsToFloat}) {
      FlatBuffer y(stream_, DType::kFloat32, m * n);
      product(launch, rows, w.data(), m, n, k, y.f32());
      all.emplace_back(y.bytes());
      y.CopyToHost(all.back());
    }
    return all;
  }

  OwnedStream stream_{Device::kCpu};
};

// Those that the engine takes a step with and those of a packed pass, in batches of both sizes.
TEST_F(ExactProductsCuda, EngineAndLearnerMeetTheSameBits) {
  constexpr int64_t kN = 896, kK = 4864;
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    const FlatBuffer x = Drawn(kMost * kK, 1, dtype), w = Drawn(kN * kK, 2, dtype);
    const auto all = Products(dtype, x, w, kMost, kN, kK);
    for (const auto& [a, b] : {std::pair{0, 1}, {2, 3}, {4, 5}})
      EXPECT_EQ(all[static_cast<size_t>(a)], all[static_cast<size_t>(b)]) << a << " and " << b;
    for (const int64_t m : {1, 17, 152, 256}) {
      const auto few = Products(dtype, x, w, m, kN, kK);
      for (size_t i = 0; i < few.size(); ++i) {
        const size_t row = few[i].size() / static_cast<size_t>(m);
        EXPECT_EQ(std::memcmp(few[i].data(), all[i].data() + (kMost - m) * row, few[i].size()), 0)
            << m << " rows, form " << i;
      }
    }
  }
}

// Where it is off LibTorch's products are as before: near, and of the same sums.
TEST_F(ExactProductsCuda, OffLeavesThemToCublas) {
  constexpr int64_t kN = 896, kK = 4864, kRows = 64;
  const FlatBuffer x = Drawn(kMost * kK, 1, DType::kFloat32),
                   w = Drawn(kN * kK, 2, DType::kFloat32);
  const auto exact = Products(DType::kFloat32, x, w, kRows, kN, kK);
  kernels::SetExactProducts(false);
  const auto free = Products(DType::kFloat32, x, w, kRows, kN, kK);
  std::vector<float> a(kRows * kN), b(kRows * kN);
  std::memcpy(a.data(), exact[0].data(), exact[0].size());
  std::memcpy(b.data(), free[0].data(), free[0].size());
  // sums of kK normal values, each added with half an ulp of what it reached, both times
  const double bound = 4 * std::ldexp(1.0, -24) * kK * 4 * std::sqrt(double{kK});
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << i;
}

}  // namespace
}  // namespace plumb::policy_model
