// The product of matrices in FP8 on the CPU against sums in double (kernels/fp8/fp8_product.h).
#include "kernels/fp8/fp8_product.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Case {
  int64_t m, n, k;
};

TEST(Fp8ProductTest, IsTheSumOfWhatTheCodesSay) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Case& c : {Case{1, 1, 1}, {3, 70, 64}, {9, 32, 130}, {64, 33, 17}}) {
      for (const Fp8 format : {Fp8::kE4M3, Fp8::kE5M2}) {
        RandomStream random(7, static_cast<uint64_t>(c.k));
        const auto codes = [&](int64_t n) {
          std::vector<uint8_t> out(static_cast<size_t>(n));
          // Of middling exponents, of both signs.
          for (uint8_t& code : out) code = static_cast<uint8_t>(random.NextBelow(256) & 0xBF);
          return out;
        };
        const auto a = codes(c.m * c.k), b = codes(c.n * c.k);
        const auto a_scale = Normal(static_cast<size_t>(c.m), 1),
                   b_scale = Normal(static_cast<size_t>(c.n), 2);
        for (const bool add : {false, true}) {
          std::vector<float> before = Normal(static_cast<size_t>(c.m * c.n), 3, dtype);
          Tensor y({Device::kCpu, dtype}, before);
          Call({.dtype = dtype}, Fp8Product{.a = a.data(),
                                            .a_scale = a_scale.data(),
                                            .a_format = format,
                                            .b = b.data(),
                                            .b_scale = b_scale.data(),
                                            .m = c.m,
                                            .n = c.n,
                                            .k = c.k,
                                            .accumulate = add,
                                            .y = y.data()});
          std::vector<double> expected;
          double most = 0;
          for (int64_t i = 0; i < c.m; ++i) {
            for (int64_t j = 0; j < c.n; ++j) {
              double sum = 0, size = 0;
              for (int64_t t = 0; t < c.k; ++t) {
                const uint8_t code = a[static_cast<size_t>(i * c.k + t)];
                const float left = format == Fp8::kE4M3 ? E4M3::Value(code) : E5M2::Value(code);
                const double term =
                    static_cast<double>(left) *
                    static_cast<double>(E4M3::Value(b[static_cast<size_t>(j * c.k + t)]));
                sum += term;
                size += std::abs(term);
              }
              const double scale = static_cast<double>(a_scale[static_cast<size_t>(i)]) *
                                   static_cast<double>(b_scale[static_cast<size_t>(j)]);
              most = std::max(most, size * std::abs(scale));
              expected.push_back(
                  sum * scale +
                  (add ? static_cast<double>(before[static_cast<size_t>(i * c.n + j)]) : 0));
            }
          }
          ExpectClose(y.Host(), expected, OutputRounding(dtype) + 3 * kEps,
                      static_cast<double>(c.k) * kEps * most, "product");
        }
      }
    }
  }
}

// A row has the same bits whatever rows are beside it.
TEST(Fp8ProductTest, ARowDoesNotDependOnItsNeighbours) {
  constexpr int64_t kM = 7, kN = 40, kK = 100;
  std::vector<uint8_t> a(kM * kK), b(kN * kK);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint8_t>(i * 37 % 0x7E);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<uint8_t>(i * 53 % 0x7E);
  const std::vector<float> scale(kN, 0.37f);
  const auto rows = [&](int64_t first, int64_t m) {
    std::vector<float> y(static_cast<size_t>(m * kN));
    Call({}, Fp8Product{.a = a.data() + first * kK,
                        .a_scale = scale.data(),
                        .b = b.data(),
                        .b_scale = scale.data(),
                        .m = m,
                        .n = kN,
                        .k = kK,
                        .y = y.data()});
    return y;
  };
  const auto all = rows(0, kM), alone = rows(5, 1);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + 5 * kN));
}

}  // namespace
}  // namespace plumb::kernels
