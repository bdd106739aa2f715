#include "kernels/products/lt_products.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>

#include "kernels/device/recorded_work.h"
#include "kernels/products/product_timing.h"
#include "tests/kernels/kernel_test.h"
#include "tests/testing/temp_folder.h"

namespace plumb::kernels {
namespace {

// What these tests time is not left in the user's cache.
class CacheOfTests : public ::testing::Environment {
 public:
  void SetUp() override { setenv("XDG_CACHE_HOME", folder_.emplace().path().c_str(), 1); }
  // Not with the environment, which outlives what a folder is removed by.
  void TearDown() override { folder_.reset(); }

 private:
  std::optional<testing::TempFolder> folder_;
};
const auto* const kCache = ::testing::AddGlobalTestEnvironment(new CacheOfTests);

class LtProductsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: products by cuBLASLt were NOT tested here (build with "
                      "-DPLUMB_CUDA=ON on a machine with a GPU)";
  }
};

#ifdef PLUMB_CUDA
constexpr Device kDevice = Device::Cuda(0);
constexpr int64_t kMostRows = 512;

struct Shape {
  const char* name;
  int64_t n, k;
};
// The products whose sums cuBLAS splits by the number of rows, of 0.5B to 8B, and three that it
// does not.
constexpr Shape kShapes[] = {
    {"down of 0.5B", 896, 4864}, {"down of 1.5B", 1536, 8960}, {"down of 7B", 3584, 18944},
    {"down of 8B", 4096, 12288}, {"o of 7B", 3584, 3584},      {"o of 8B", 4096, 4096},
    {"down of 135M", 576, 1536}, {"qkv of 0.5B", 1152, 896},   {"down of Qwen3-0.6B", 1024, 3072}};

// Values on the GPU, and products of the first rows of x.
class Operands {
 public:
  Operands(const Shape& shape, DType y_dtype = DType::kBFloat16)
      : shape_(shape),
        y_dtype_(y_dtype),
        x_(kDevice, static_cast<size_t>(kMostRows * shape.k)),
        w_(kDevice, static_cast<size_t>(shape.n * shape.k)) {
    FillForTiming(launch_, x_.data(), kMostRows * shape.k, 11);
    FillForTiming(launch_, w_.data(), shape.n * shape.k, 12);
  }

  RowProduct Of(int64_t first, int64_t m, void* y, const void* residual = nullptr) {
    return {.x = x_.data() + first * shape_.k,
            .w = w_.data(),
            .m = m,
            .n = shape_.n,
            .k = shape_.k,
            .residual = residual,
            .y_dtype = y_dtype_,
            .y = y};
  }
  // The bits of y, as the type of y has them.
  std::vector<float> Rows(int64_t first, int64_t m, bool residual = false) {
    Tensor y({kDevice, y_dtype_},
             std::vector<float>(static_cast<size_t>(m * shape_.n), residual ? 0.5f : kPoison));
    Call(launch_, Of(first, m, y.data(), residual ? y.data() : nullptr));
    return y.Host();
  }
  const Launch& launch() const { return launch_; }
  std::vector<BFloat16> x() { return x_.Host(); }
  std::vector<BFloat16> w() { return w_.Host(); }

 private:
  const Launch launch_{.stream = TestStream(kDevice), .dtype = DType::kBFloat16};
  const Shape shape_;
  const DType y_dtype_;
  Array<BFloat16> x_, w_;
};

std::vector<float> Part(const std::vector<float>& all, int64_t first, int64_t m, int64_t n) {
  return {all.begin() + first * n, all.begin() + (first + m) * n};
}

TEST_F(LtProductsTest, RowsHaveTheSameBitsInEveryBatch) {
  for (const Shape& shape : kShapes) {
    Operands of(shape);
    const auto all = of.Rows(0, kMostRows), added = of.Rows(0, kMostRows, true);
    for (const int64_t m : {1, 17, 64, 152, 256}) {
      for (const int64_t first : {int64_t{0}, kMostRows - m}) {
        const std::string what = std::string(shape.name) + ", " + std::to_string(m) +
                                 " rows from " + std::to_string(first);
        ExpectSameBits(of.Rows(first, m), Part(all, first, m, shape.n), what);
        ExpectSameBits(of.Rows(first, m, true), Part(added, first, m, shape.n),
                       what + ", residual");
      }
    }
    for (const int64_t m : {8, 17, 64, 152, 256, 512}) {
      const auto chosen =
          ChosenProduct(kDevice, {.rows = RowBucket(m), .n = shape.n, .k = shape.k});
      std::cout << shape.name << ", " << m
                << " rows: " << (chosen ? ProductChoiceText(*chosen) : "not tuned") << "\n";
    }
  }
}

TEST_F(LtProductsTest, LogitsHaveTheSameBitsInEveryBatch) {
  const Shape head{"head", 49152, 576};
  Operands of(head, DType::kFloat32);
  const auto all = of.Rows(0, 256);
  for (const int64_t m : {1, 17, 152})
    ExpectSameBits(of.Rows(256 - m, m), Part(all, 256 - m, m, head.n), std::to_string(m));
}

// Values are in [-1, 1) with variance 1/3, so a sum of t products has size sqrt(t) / 3 and stays
// below four times that; each of k additions cuts off at most 2^-23 of what it reached.
TEST_F(LtProductsTest, IsWithinTheErrorOfItsSumsOfADoubleProduct) {
  for (const Shape& shape : kShapes) {
    Operands of(shape);
    const auto x = of.x(), w = of.w();
    const auto terms = static_cast<double>(shape.k);
    const double bound = 2 * kEps * terms * 4 * std::sqrt(terms) / 3;
    for (const int64_t m : {1, 152}) {
      const auto y = of.Rows(0, m);
      for (int64_t i = 0; i < m * shape.n; i += 1 + m * shape.n / 2000) {
        const int64_t row = i / shape.n, column = i % shape.n;
        double sum = 0;
        for (int64_t t = 0; t < shape.k; ++t)
          sum += static_cast<double>(ToFloat(x[static_cast<size_t>(row * shape.k + t)])) *
                 static_cast<double>(ToFloat(w[static_cast<size_t>(column * shape.k + t)]));
        ASSERT_NEAR(static_cast<double>(y[static_cast<size_t>(i)]), sum,
                    bound + kHalfBf16 * std::abs(sum))
            << shape.name << ", row " << row << " of " << m << ", column " << column;
      }
    }
  }
}

// First met while a stream is recorded: nothing can be timed there, and the bits are those of what
// is tuned afterwards.
TEST_F(LtProductsTest, ARecordGivesTheSameBitsBeforeAndAfterTuning) {
  const Shape shape{"not met elsewhere", 1160, 2056};
  constexpr int64_t kRows = 17;
  Operands of(shape);
  const ProductKey key = {.rows = RowBucket(kRows), .n = shape.n, .k = shape.k};
  Tensor y({kDevice, DType::kBFloat16}, static_cast<size_t>(kRows * shape.n));
  const auto replayed = [&] {
    const RecordedWork work(of.launch().stream,
                            [&] { Call(of.launch(), of.Of(0, kRows, y.data())); });
    work.Replay();
    of.launch().stream.Synchronize();
    return y.Host();
  };
  const auto before = replayed();
  EXPECT_FALSE(ChosenProduct(kDevice, key));
  const auto tuned = of.Rows(0, kRows);
  EXPECT_TRUE(ChosenProduct(kDevice, key));
  ExpectSameBits(before, tuned, "recorded before it was tuned");
  ExpectSameBits(replayed(), tuned, "recorded after");
}

TEST_F(LtProductsTest, ChoicesAreKeptInTheFile) {
  const Shape shape{"not met elsewhere", 1176, 2056};
  Operands of(shape);
  of.Rows(0, 9);
  const ProductKey key = {.rows = 16, .n = shape.n, .k = shape.k};
  const ChoicesOwner owner = ChoicesOwnerOf(kDevice);
  const ProductChoices kept = ReadChoices(ChoicesPath(owner), owner);
  ASSERT_TRUE(kept.count(key));
  EXPECT_EQ(kept.at(key), ChosenProduct(kDevice, key));
}
#else
TEST_F(LtProductsTest, NeedsAGpu) {}
#endif

}  // namespace
}  // namespace plumb::kernels
