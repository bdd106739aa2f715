#include "kernels/bf16_matvec.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

std::vector<BFloat16> Half(const std::vector<float>& x) {
  std::vector<BFloat16> out;
  for (const float f : x) out.push_back(ToBFloat16(f));
  return out;
}

std::vector<float> Product(const std::vector<float>& x, const std::vector<float>& w, int64_t m,
                           int64_t n, int64_t k, DType dtype,
                           const std::vector<float>* add = nullptr) {
  Tensor y({Device::kCpu, dtype}, add ? *add : std::vector<float>(static_cast<size_t>(m * n), NAN));
  Call({}, Bf16Matvec{.x = Half(x).data(),
                      .w = Half(w).data(),
                      .m = m,
                      .n = n,
                      .k = k,
                      .accumulate = add != nullptr,
                      .y_dtype = dtype,
                      .y = y.data()});
  return y.Host();
}

TEST(Bf16MatvecTest, IsTheProduct) {
  for (const auto& [m, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{{1, 1, 1},
                                                                                  {1, 17, 31},
                                                                                  {2, 64, 576},
                                                                                  {3, 65, 100},
                                                                                  {4, 130, 33},
                                                                                  {5, 7, 64},
                                                                                  {8, 96, 1536},
                                                                                  {11, 33, 48}}) {
    const auto x = Normal(static_cast<size_t>(m * k), 1, DType::kBFloat16),
               w = Normal(static_cast<size_t>(n * k), 2, DType::kBFloat16);
    const auto before = Normal(static_cast<size_t>(m * n), 3, DType::kBFloat16);
    std::vector<double> expected(static_cast<size_t>(m * n)), added;
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        for (int64_t i = 0; i < k; ++i) {
          expected[static_cast<size_t>(r * n + c)] +=
              static_cast<double>(x[static_cast<size_t>(r * k + i)]) *
              static_cast<double>(w[static_cast<size_t>(c * k + i)]);
        }
      }
    }
    for (size_t i = 0; i < expected.size(); ++i)
      added.push_back(expected[i] + static_cast<double>(before[i]));
    // Products of two bfloat16 are exact in fp32; a sum of k terms of size 1 grows to ~4 sqrt(k),
    // rounded k / 16 times a lane and a few more in the tree.
    const double absolute =
        kEps * 4 * std::sqrt(static_cast<double>(k)) * (8 + std::sqrt(static_cast<double>(k)));
    const std::string what = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      ExpectClose(Product(x, w, m, n, k, dtype), expected, OutputRounding(dtype), absolute, what);
      ExpectClose(Product(x, w, m, n, k, dtype, &before), added, OutputRounding(dtype), absolute,
                  what + " added");
    }
  }
}

TEST(Bf16MatvecTest, ARowDoesNotKnowItsBatchNorTheThreads) {
  constexpr int64_t kN = 193, kK = 576;
  const auto x = Normal(32 * kK, 1, DType::kBFloat16), w = Normal(kN * kK, 2, DType::kBFloat16);
  const auto expected = Product(x, w, 32, kN, kK, DType::kFloat32);
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 32}) {
    WithThreads([&](int) {
      ExpectSameBits(Product({x.begin(), x.begin() + m * kK}, w, m, kN, kK, DType::kFloat32),
                     {expected.begin(), expected.begin() + m * kN}, std::to_string(m));
    });
  }
}

TEST(Bf16MatvecTest, OnCudaSaysWhoDoesIt) {
  try {
    int nothing = 0;
    Call({.stream = Stream::Borrow(Device::Cuda(0), &nothing)},
         Bf16Matvec{.x = nullptr,
                    .w = nullptr,
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
