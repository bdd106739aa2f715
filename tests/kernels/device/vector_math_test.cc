#include "kernels/device/vector_math.h"

#include "kernels/device/cpu_common.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

TEST(VectorMath, ExpIsWithinTwoUlpAndRightAtTheEnds) {
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const float x = -87.3f + 175.6f * static_cast<float>(i) / 200000.0f;
    const double exact = std::exp(static_cast<double>(x));
    const auto rounded = static_cast<float>(exact);
    const double ulp =
        static_cast<double>(std::nextafter(rounded, INFINITY)) - static_cast<double>(rounded);
    worst = std::max(worst, std::abs(static_cast<double>(FastExp(x)) - exact) / ulp);
    ASSERT_EQ(Exp(Broadcast(x))[i % 16], FastExp(x)) << x;
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(FastExp(0.0f), 1.0f);
  EXPECT_EQ(FastExp(-INFINITY), 0.0f);
  EXPECT_EQ(FastExp(-90.0f), 0.0f);
  EXPECT_EQ(FastExp(INFINITY), INFINITY);
  EXPECT_EQ(FastExp(89.0f), INFINITY);
  EXPECT_TRUE(std::isnan(FastExp(NAN)));
  const FloatLanes ends = Exp(Load(std::array<float, 16>{-INFINITY, INFINITY, NAN, 0}.data()));
  EXPECT_EQ(ends[0], 0.0f);
  EXPECT_EQ(ends[1], INFINITY);
  EXPECT_TRUE(std::isnan(ends[2]));
  EXPECT_EQ(ends[3], 1.0f);
}

TEST(VectorMath, TransposesSumsAndFindsMaxima) {
  FloatLanes rows[16], copy[16];
  for (int r = 0; r < 16; ++r) {
    float row[16];
    for (int c = 0; c < 16; ++c) row[c] = static_cast<float>(r * 16 + c);
    rows[r] = copy[r] = Load(row);
  }
  Transpose(rows);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 16; ++c) ASSERT_EQ(rows[r][c], static_cast<float>(c * 16 + r));
  }
  const FloatLanes sums = SumRows(copy);
  for (int r = 0; r < 16; ++r) EXPECT_EQ(sums[r], static_cast<float>(r * 256 + 120));
  EXPECT_EQ(Sum(rows[1]), 16.0f * 120 + 16);
  for (int top = 0; top < 16; ++top) {
    float v[16] = {};
    v[top] = 3;
    EXPECT_EQ(Max(Load(v)), 3.0f) << top;
  }
  for (const size_t n : {0, 1, 15, 64, 100, 1000}) {
    auto x = Normal(n, n);
    for (const size_t at : {size_t{0}, n / 2, n - 1}) {
      if (at >= n) continue;
      const float old = x[at];
      x[at] = 50;
      EXPECT_EQ(MaxOf(x.data(), static_cast<int64_t>(n)), 50.0f) << n << " " << at;
      x[at] = old;
    }
  }
  EXPECT_EQ(MaxOf(nullptr, 0), -INFINITY);
}

TEST(VectorMath, WidensBfloat16) {
  std::vector<BFloat16> x(16);
  for (int i = 0; i < 16; ++i)
    x[static_cast<size_t>(i)] = ToBFloat16(static_cast<float>(i) * -0.37f);
  const FloatLanes v = Load(x.data()), part = LoadPart(x.data(), 5);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(v[i], ToFloat(x[static_cast<size_t>(i)]));
    EXPECT_EQ(part[i], i < 5 ? v[i] : 0.0f);
  }
}

TEST(Launch, SaysWhatIsMissing) {
  if (CudaAvailable()) GTEST_SKIP() << "this machine has a GPU and this build its kernels";
  try {
    NoCuda("RmsNorm");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(e.message().find("RmsNorm"), std::string::npos);
  }
  EXPECT_THROW(ForDType(DType::kInt32, [](auto) {}), Error);
}

}  // namespace
}  // namespace plumb::kernels
