#include "kernels/products/row_product.h"

#include <cmath>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(RowProductTest);

struct Sizes {
  int64_t m, n, k;
};
// Such as the library takes, and odd ones, with whole and broken tiles of 16, 64 and 128.
const Sizes kSizes[] = {{1, 8, 8},     {3, 5, 7},    {17, 136, 72},
                        {65, 130, 33}, {40, 24, 40}, {130, 64, 512}};

// Sums of k products of normal values: partial sums grow like the root of their number, and each
// addition rounds, or cuts off, one of them.
double SumError(int64_t k) {
  const auto terms = static_cast<double>(k);
  return 2 * kEps * (terms + 8) * 4 * std::sqrt(terms + 8);
}

TEST_P(RowProductTest, IsTheProductAndWhatIsAdded) {
  for (const Sizes& s : kSizes) {
    const auto mk = static_cast<size_t>(s.m * s.k), nk = static_cast<size_t>(s.n * s.k),
               mn = static_cast<size_t>(s.m * s.n);
    const auto x = Normal(mk, 1, dtype()), w = Normal(nk, 2, dtype());
    Tensor tx(GetParam(), x), tw(GetParam(), w);
    for (const DType y_dtype : {dtype(), DType::kFloat32}) {
      const Target out{device(), y_dtype};
      const auto added = Normal(mn, 3, y_dtype),
                 bias = Normal(static_cast<size_t>(s.n), 4, y_dtype);
      for (const bool with_residual : {false, true}) {
        for (const bool with_bias : {false, true}) {
          // The library rounds the product to bfloat16 before it adds a residual of that type.
          const bool twice = device().is_cuda() && with_residual && y_dtype == DType::kBFloat16;
          std::vector<double> want(mn), rounded(mn);
          for (int64_t r = 0; r < s.m; ++r) {
            for (int64_t c = 0; c < s.n; ++c) {
              double sum = 0;
              for (int64_t t = 0; t < s.k; ++t)
                sum += static_cast<double>(x[static_cast<size_t>(r * s.k + t)]) *
                       static_cast<double>(w[static_cast<size_t>(c * s.k + t)]);
              const auto at = static_cast<size_t>(r * s.n + c);
              if (twice) rounded[at] = std::abs(sum) + std::abs(bias[static_cast<size_t>(c)]);
              if (with_residual) sum += static_cast<double>(added[at]);
              if (with_bias) sum += static_cast<double>(bias[static_cast<size_t>(c)]);
              want[at] = sum;
            }
          }
          Tensor ty(out, added), tb(out, bias);
          Call(launch(), RowProduct{.x = tx.data(),
                                    .w = tw.data(),
                                    .m = s.m,
                                    .n = s.n,
                                    .k = s.k,
                                    .residual = with_residual ? ty.data() : nullptr,
                                    .bias = with_bias ? tb.data() : nullptr,
                                    .y_dtype = y_dtype,
                                    .y = ty.data()});
          const auto got = ty.Host();
          for (size_t i = 0; i < mn; ++i) {
            ASSERT_NEAR(static_cast<double>(got[i]), want[i],
                        SumError(s.k) + OutputRounding(y_dtype) * (std::abs(want[i]) + rounded[i]))
                << s.m << " x " << s.n << " x " << s.k << (with_residual ? ", residual" : "")
                << (with_bias ? ", bias" : "") << ", element " << i;
          }
        }
      }
    }
  }
}

TEST_P(RowProductTest, RowsHaveTheSameBitsInAnyNumber) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{72, 512}, {7, 33}}) {
    constexpr int64_t kMost = 300;
    const auto x = Normal(static_cast<size_t>(kMost * k), 1, dtype()),
               w = Normal(static_cast<size_t>(n * k), 2, dtype());
    const auto product = [&](int64_t first, int64_t m) {
      Tensor tx(GetParam(), std::vector<float>(x.begin() + first * k, x.begin() + (first + m) * k)),
          tw(GetParam(), w), ty(GetParam(), static_cast<size_t>(m * n));
      Call(launch(), RowProduct{.x = tx.data(),
                                .w = tw.data(),
                                .m = m,
                                .n = n,
                                .k = k,
                                .y_dtype = dtype(),
                                .y = ty.data()});
      return ty.Host();
    };
    const auto all = product(0, kMost);
    for (const int64_t m : {1, 17, 64, 152}) {
      for (const int64_t first : {int64_t{0}, int64_t{140}}) {
        ExpectSameBits(product(first, m),
                       std::vector<float>(all.begin() + first * n, all.begin() + (first + m) * n),
                       std::to_string(m) + " rows from " + std::to_string(first));
      }
    }
  }
}

TEST_P(RowProductTest, NothingIsDoneForNoRows) {
  Tensor x(GetParam(), 8), w(GetParam(), 64), y(GetParam(), std::vector<float>(8, kPoison));
  Call(launch(),
       RowProduct{.x = x.data(), .w = w.data(), .n = 8, .k = 8, .y_dtype = dtype(), .y = y.data()});
  const float left = dtype() == DType::kFloat32 ? kPoison : ToFloat(ToBFloat16(kPoison));
  for (const float v : y.Host()) EXPECT_EQ(v, left);
}

TEST(ExactProducts, AreOnUntilSaidOtherwise) {
  EXPECT_TRUE(ExactProducts());
  SetExactProducts(false);
  EXPECT_FALSE(ExactProducts());
  SetExactProducts(true);
  EXPECT_TRUE(ExactProducts());
  // The CPU has a word of its own.
  EXPECT_FALSE(ExactOnCpu());
  EXPECT_FALSE(ExactOn(Device::kCpu));
  EXPECT_TRUE(ExactOn(Device::Cuda(0)));
  SetExactOnCpu(true);
  EXPECT_TRUE(ExactOn(Device::kCpu));
  SetExactOnCpu(false);
  EXPECT_FALSE(ExactOnCpu());
}

}  // namespace
}  // namespace plumb::kernels
