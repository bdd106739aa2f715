#include "kernels/bf16_gemm.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

std::vector<BFloat16> Half(const std::vector<float>& x) {
  std::vector<BFloat16> out;
  for (const float f : x) out.push_back(ToBFloat16(f));
  return out;
}

// x: [count, terms] in the layout's order.
std::vector<BFloat16> Laid(const std::vector<float>& x, int64_t count, int64_t terms,
                           Layout layout) {
  std::vector<float> out(x);
  if (layout == Layout::kTermsOuter) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t p = 0; p < terms; ++p)
        out[static_cast<size_t>(p * count + i)] = x[static_cast<size_t>(i * terms + p)];
    }
  }
  return Half(out);
}

struct Case {
  int64_t m, n, k;
  Bf16Words words = OwnBf16Words();
};

// The ways to multiply that this processor has.
std::vector<Bf16Words> Ways() {
  if (OwnBf16Words() != Bf16Words::kPairs) return {Bf16Words::kFloats};
  return {Bf16Words::kFloats, Bf16Words::kPairs};
}

std::vector<float> Product(const std::vector<float>& a, Layout a_layout,
                           const std::vector<float>& b, Layout b_layout, const Case& c, DType dtype,
                           const std::vector<float>* add = nullptr) {
  Tensor y({Device::kCpu, dtype},
           add ? *add : std::vector<float>(static_cast<size_t>(c.m * c.n), NAN));
  Call({}, Bf16Gemm{.a = Laid(a, c.m, c.k, a_layout).data(),
                    .a_layout = a_layout,
                    .b = Laid(b, c.n, c.k, b_layout).data(),
                    .b_layout = b_layout,
                    .m = c.m,
                    .n = c.n,
                    .k = c.k,
                    .accumulate = add != nullptr,
                    .y_dtype = dtype,
                    .y = y.data(),
                    .words = c.words});
  return y.Host();
}

// Few rows and many, partial tiles on every side, more than a block of rows, columns and terms.
TEST(Bf16GemmTest, IsTheProductInEveryLayout) {
  for (const Case& c : {Case{1, 1, 1}, Case{9, 17, 31}, Case{33, 64, 576}, Case{64, 15, 100},
                        Case{40, 30, 2100}, Case{65, 33, 17}, Case{71, 130, 64},
                        Case{200, 45, 2500}, Case{1030, 50, 20}, Case{70, 2100, 24}}) {
    const auto a = Normal(static_cast<size_t>(c.m * c.k), 1, DType::kBFloat16),
               b = Normal(static_cast<size_t>(c.n * c.k), 2, DType::kBFloat16);
    const auto before = Normal(static_cast<size_t>(c.m * c.n), 3, DType::kBFloat16);
    std::vector<double> expected(static_cast<size_t>(c.m * c.n)), added;
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < c.k; ++p)
          sum += static_cast<double>(a[static_cast<size_t>(i * c.k + p)]) *
                 static_cast<double>(b[static_cast<size_t>(j * c.k + p)]);
        expected[static_cast<size_t>(i * c.n + j)] = sum;
      }
    }
    for (size_t i = 0; i < expected.size(); ++i)
      added.push_back(expected[i] + static_cast<double>(before[i]));
    // Products are exact; one running sum of k terms of size 1 stays below ~4 sqrt(k) and is
    // rounded k times.
    const double root = std::sqrt(static_cast<double>(c.k)),
                 absolute = kEps * 4 * root * (2 + root);
    const std::string what =
        std::to_string(c.m) + "x" + std::to_string(c.n) + "x" + std::to_string(c.k);
    for (const Layout la : {Layout::kTermsInner, Layout::kTermsOuter}) {
      for (const Layout lb : {Layout::kTermsInner, Layout::kTermsOuter}) {
        for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
          for (const Bf16Words words : Ways()) {
            const Case way{c.m, c.n, c.k, words};
            ExpectClose(Product(a, la, b, lb, way, dtype), expected, OutputRounding(dtype),
                        absolute, what);
            ExpectClose(Product(a, la, b, lb, way, dtype, &before), added, OutputRounding(dtype),
                        absolute, what + " added");
          }
        }
      }
    }
  }
}

// What follows in operands of its own is as if it had been part of the first, in every layout and
// behind any number of terms.
TEST(Bf16GemmTest, TermsThatFollowAreTermsOfTheSameSum) {
  for (const Case& c : {Case{9, 30, 64}, Case{40, 17, 100}, Case{100, 70, 2 * kBf16GemmDepth},
                        Case{70, 45, kBf16GemmDepth + 50}}) {
    constexpr int64_t kMore = 24;
    const auto a = Normal(static_cast<size_t>(c.m * (c.k + kMore)), 1, DType::kBFloat16),
               b = Normal(static_cast<size_t>(c.n * (c.k + kMore)), 2, DType::kBFloat16);
    const auto part = [&](const std::vector<float>& x, int64_t count, int64_t from, int64_t to) {
      std::vector<float> out;
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t p = from; p < to; ++p)
          out.push_back(x[static_cast<size_t>(i * (c.k + kMore) + p)]);
      }
      return out;
    };
    std::vector<double> expected;
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < c.k + kMore; ++p)
          sum += static_cast<double>(a[static_cast<size_t>(i * (c.k + kMore) + p)]) *
                 static_cast<double>(b[static_cast<size_t>(j * (c.k + kMore) + p)]);
        expected.push_back(sum);
      }
    }
    const double root = std::sqrt(static_cast<double>(c.k + kMore)),
                 absolute = kEps * 4 * root * (2 + root);
    for (const Layout la : {Layout::kTermsInner, Layout::kTermsOuter}) {
      for (const Layout lb : {Layout::kTermsInner, Layout::kTermsOuter}) {
        for (const Bf16Words words : Ways()) {
          Tensor y({Device::kCpu, DType::kFloat32},
                   std::vector<float>(static_cast<size_t>(c.m * c.n), NAN));
          Call({}, Bf16Gemm{.a = Laid(part(a, c.m, 0, c.k), c.m, c.k, la).data(),
                            .a_layout = la,
                            .b = Laid(part(b, c.n, 0, c.k), c.n, c.k, lb).data(),
                            .b_layout = lb,
                            .m = c.m,
                            .n = c.n,
                            .k = c.k,
                            .more_a = Laid(part(a, c.m, c.k, c.k + kMore), c.m, kMore, la).data(),
                            .more_b = Laid(part(b, c.n, c.k, c.k + kMore), c.n, kMore, lb).data(),
                            .more_k = kMore,
                            .y_dtype = DType::kFloat32,
                            .y = y.data(),
                            .words = words});
          ExpectClose(y.Host(), expected, kEps, absolute, std::to_string(c.k));
        }
      }
    }
  }
}

TEST(Bf16GemmTest, ARowDoesNotKnowItsBatchNorTheThreads) {
  for (const int64_t k : {int64_t{96}, kBf16GemmDepth + 77}) {
    constexpr int64_t kN = 93, kMost = 150;
    const auto x = Normal(static_cast<size_t>(kMost * k), 1, DType::kBFloat16),
               w = Normal(static_cast<size_t>(kN * k), 2, DType::kBFloat16);
    for (const Bf16Words words : Ways()) {
      const auto expected = Product(x, Layout::kTermsInner, w, Layout::kTermsInner,
                                    {kMost, kN, k, words}, DType::kFloat32);
      for (const int64_t m : {1, 5, 9, 32, 63, 64, 65, 150}) {
        WithThreads([&](int) {
          ExpectSameBits(Product({x.begin(), x.begin() + m * k}, Layout::kTermsInner, w,
                                 Layout::kTermsInner, {m, kN, k, words}, DType::kFloat32),
                         {expected.begin(), expected.begin() + m * kN}, std::to_string(m));
        });
      }
    }
  }
}

TEST(Bf16GemmTest, OnCudaSaysWhoDoesIt) {
  try {
    int nothing = 0;
    Call({.stream = Stream::Borrow(Device::Cuda(0), &nothing)},
         Bf16Gemm{.a = nullptr,
                  .a_layout = Layout::kTermsInner,
                  .b = nullptr,
                  .b_layout = Layout::kTermsInner,
                  .m = 1,
                  .n = 1,
                  .k = 1,
                  .y_dtype = DType::kFloat32,
                  .y = nullptr});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(e.message().find("cuBLAS"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace plumb::kernels
