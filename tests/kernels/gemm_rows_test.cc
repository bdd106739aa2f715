#include "kernels/gemm_rows.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

std::vector<float> Product(const std::vector<float>& x, const std::vector<float>& w, int64_t m,
                           int64_t n, int64_t k, const std::vector<float>* add = nullptr) {
  auto y = add ? *add : std::vector<float>(static_cast<size_t>(m * n), NAN);
  Call({}, GemmRows{.x = x.data(),
                    .w = w.data(),
                    .m = m,
                    .n = n,
                    .k = k,
                    .accumulate = add != nullptr,
                    .y = y.data()});
  return y;
}

TEST(GemmRowsTest, IsTheProduct) {
  for (const auto& [m, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {1, 26, 128}, {3, 33, 65}, {13, 31, 7}, {8, 64, 576}, {130, 70, 96}}) {
    const auto x = Normal(static_cast<size_t>(m * k), 1), w = Normal(static_cast<size_t>(n * k), 2),
               before = Normal(static_cast<size_t>(m * n), 3);
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
    // One running sum of k terms that grows to ~4 sqrt(k): k roundings that mostly cancel (another
    // sqrt(k)).
    const double absolute = kEps * 4 * static_cast<double>(k) + 8 * kEps;
    const std::string what = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    ExpectClose(Product(x, w, m, n, k), expected, 0, absolute, what);
    ExpectClose(Product(x, w, m, n, k, &before), added, kEps, absolute, what + " added");
  }
}

TEST(GemmRowsTest, ARowDoesNotKnowItsBatchNorTheThreads) {
  for (const int64_t n : {26, 193, 600}) {
    constexpr int64_t kK = 576;
    const auto x = Normal(64 * kK, 1), w = Normal(static_cast<size_t>(n * kK), 2);
    const auto expected = Product(x, w, 64, n, kK);
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 9, 16, 32, 63}) {
      WithThreads([&](int) {
        ExpectSameBits(Product({x.begin(), x.begin() + m * kK}, w, m, n, kK),
                       {expected.begin(), expected.begin() + m * n}, std::to_string(m));
      });
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
