#include "kernels/delta/tiles.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr int32_t kRow = 96;  // floats from row to row, everywhere

std::vector<double> Multiply(const std::vector<double>& a, bool transposed,
                             const std::vector<double>& b, int32_t rows, int32_t depth,
                             int32_t width) {
  std::vector<double> c(static_cast<size_t>(rows) * kRow);
  for (int32_t i = 0; i < rows; ++i) {
    for (int32_t j = 0; j < width; ++j) {
      for (int32_t k = 0; k < depth; ++k)
        c[static_cast<size_t>(i * kRow + j)] +=
            a[static_cast<size_t>(transposed ? k * kRow + i : i * kRow + k)] *
            b[static_cast<size_t>(k * kRow + j)];
    }
  }
  return c;
}

TEST(TilesTest, ProductsOfEverySize) {
  for (const int32_t rows : {1, 5, 6, 7, 16, 64}) {
    for (const int32_t width : {16, 32, 48, 64, 80, 96}) {
      for (const bool transposed : {false, true}) {
        const int32_t depth = 21;
        const auto a = Normal(96 * kRow, 1), b = Normal(96 * kRow, 2);
        std::vector<float> c(static_cast<size_t>(rows) * kRow, 0.0f);
        const Left left{a.data(), transposed ? 1 : kRow, transposed ? kRow : 1};
        const auto want = Multiply(ToDouble(a), transposed, ToDouble(b), rows, depth, width);
        Product(rows, width, depth, left, b.data(), kRow, false, c.data(), kRow);
        ExpectClose(c, want, kEps, 21 * 8 * kEps, "c");
        Product(rows, width, depth, left, b.data(), kRow, true, c.data(), kRow);
        auto twice = want;
        for (double& x : twice) x *= 2;
        ExpectClose(c, twice, kEps, 42 * 8 * kEps, "added");
      }
    }
  }
}

TEST(TilesTest, TrianglesAndTheirInverses) {
  for (const int32_t n : {1, 2, 16, 17, 40, 64}) {
    constexpr int32_t width = 32;
    std::vector<float> t(64 * kRow, 0.0f), strict = t;
    const auto random = Normal(64 * kRow, 3, DType::kFloat32, 0.2f), b = Normal(64 * kRow, 4);
    for (int32_t i = 0; i < n; ++i) {
      for (int32_t j = 0; j <= i; ++j) {
        const auto at = static_cast<size_t>(i * kRow + j);
        t[at] = random[at];
        strict[at] = j < i ? random[at] : 0.0f;
      }
    }
    const auto first = [&](std::vector<float> x) {
      x.resize(static_cast<size_t>(n) * kRow);
      for (size_t i = 0; i < x.size(); ++i) x[i] = i % kRow < width ? x[i] : 0.0f;
      return x;
    };
    for (const bool transposed : {false, true}) {
      std::vector<float> c(64 * kRow, 0.0f);
      (transposed ? TriangleTransposedProduct : TriangleProduct)(n, width, t.data(), kRow, b.data(),
                                                                 kRow, false, c.data(), kRow);
      ExpectClose(first(c), Multiply(ToDouble(t), transposed, ToDouble(b), n, n, width), kEps,
                  64 * kEps, "product");
      // x - t x is what was solved for.
      std::vector<float> x = b;
      (transposed ? SolveLowerTransposed : SolveLower)(n, width, strict.data(), kRow, x.data(),
                                                       kRow);
      const auto tx = Multiply(ToDouble(strict), transposed, ToDouble(x), n, n, width);
      std::vector<double> rest = ToDouble(first(x));
      double largest = 1;
      for (size_t i = 0; i < rest.size(); ++i) {
        largest = std::max(largest, std::abs(rest[i]));
        rest[i] -= tx[i];
      }
      ExpectClose(first(b), rest, kEps, 64 * largest * kEps, "solved");
    }
  }
}

TEST(TilesTest, RowsAreTransposedAndPadded) {
  const auto x = Normal(20 * kRow, 5);
  std::vector<float> out(48 * 64, kPoison);
  TransposeTile(x.data(), kRow, 20, 48, 64, out.data());
  for (size_t i = 0; i < 48; ++i) {
    for (size_t j = 0; j < 32; ++j) EXPECT_EQ(out[i * 64 + j], j < 20 ? x[j * kRow + i] : 0.0f);
  }
}

}  // namespace
}  // namespace plumb::kernels
