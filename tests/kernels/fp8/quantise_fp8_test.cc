// Matrices in FP8, by rows and by columns (kernels/fp8/quantise_fp8.h): every code and scale is
// compared with its definition, bit for bit on both devices.
#include "kernels/fp8/quantise_fp8.h"

#include <chrono>
#include <limits>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(QuantiseFp8Test);

struct Codes {
  std::vector<uint8_t> codes;
  std::vector<float> scale;
};

template <class K>
Codes Quantise(const Launch& launch, Target target, const std::vector<float>& x, int64_t rows,
               int64_t columns, Fp8 format, int64_t scales) {
  Tensor in(target, x);
  Array<uint8_t> codes(target.device, x.size());
  Array<float> scale(target.device, static_cast<size_t>(scales));
  Call(launch, K{.x = in.data(),
                 .rows = rows,
                 .columns = columns,
                 .format = format,
                 .codes = codes.data(),
                 .scale = scale.data()});
  launch.stream.Synchronize();
  return {codes.Host(), scale.Host()};
}

// The definition: of row r of x.
template <class C>
void CheckRow(const std::vector<float>& row, const uint8_t* codes, int64_t step, float scale,
              const std::string& what) {
  float largest = 0;
  for (const float x : row) largest = std::fmax(largest, std::fabs(x));
  ASSERT_EQ(scale, Fp8Scale<C>(largest)) << what;
  for (size_t i = 0; i < row.size(); ++i) {
    ASSERT_EQ(codes[static_cast<int64_t>(i) * step], C::Code(row[i] * (1.0f / scale)))
        << what << " element " << i << " of " << row[i];
  }
}

TEST_P(QuantiseFp8Test, RowsAndColumnsAreTheDefinition) {
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 16}, {64, 64}, {130, 96}, {17, 33}, {1100, 48}, {2, 5000}}) {
    std::vector<float> x = Normal(static_cast<size_t>(rows * columns), 5, dtype());
    for (int64_t r = 0; r < rows; ++r) {  // of very different sizes
      for (int64_t c = 0; c < columns; ++c)
        x[static_cast<size_t>(r * columns + c)] *= std::exp2f(static_cast<float>(r % 7 - c % 5));
    }
    if (rows > 2) std::fill_n(x.begin() + columns, columns, 0.0f);
    for (const Fp8 format : {Fp8::kE4M3, Fp8::kE5M2}) {
      const std::string what = std::to_string(rows) + " x " + std::to_string(columns);
      const Codes by_rows =
          Quantise<QuantiseRows>(launch(), GetParam(), x, rows, columns, format, rows);
      const Codes by_columns =
          Quantise<QuantiseColumns>(launch(), GetParam(), x, rows, columns, format, columns);
      ForFp8(format, [&]<class C>(C) {
        for (int64_t r = 0; r < rows; ++r) {
          const auto first = x.begin() + r * columns;
          CheckRow<C>({first, first + columns}, by_rows.codes.data() + r * columns, 1,
                      by_rows.scale[static_cast<size_t>(r)], what + " row " + std::to_string(r));
        }
        for (int64_t c = 0; c < columns; ++c) {
          std::vector<float> column;
          for (int64_t r = 0; r < rows; ++r)
            column.push_back(x[static_cast<size_t>(r * columns + c)]);
          CheckRow<C>(column, by_columns.codes.data() + c * rows, 1,
                      by_columns.scale[static_cast<size_t>(c)],
                      what + " column " + std::to_string(c));
        }
      });
    }
  }
}

// What is not finite is NaN in its row, and nowhere else.
TEST_P(QuantiseFp8Test, WhatIsNotFiniteShows) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(3 * 32, 1.0f);
    x[32 + 7] = -bad;
    const Codes by_rows = Quantise<QuantiseRows>(launch(), GetParam(), x, 3, 32, Fp8::kE5M2, 3);
    EXPECT_EQ(by_rows.codes[32 + 7], E5M2::kNaN);
    for (size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(by_rows.codes[i], 0x7B);
      EXPECT_EQ(by_rows.codes[64 + i], 0x7B);
    }
    const Codes by_columns =
        Quantise<QuantiseColumns>(launch(), GetParam(), x, 3, 32, Fp8::kE4M3, 32);
    EXPECT_EQ(by_columns.codes[7 * 3 + 1], E4M3::kNaN);
    EXPECT_EQ(by_columns.codes[8 * 3 + 1], 0x7E);
  }
}

TEST(QuantiseFp8Cuda, ItsBandwidthIsPrinted) {
  if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: quantising to FP8 was NOT timed here";
  const Target target{Device::Cuda(0), DType::kBFloat16};
  const Launch launch{.stream = TestStream(target.device), .dtype = target.dtype};
  constexpr int64_t kRows = 8192, kColumns = 8192;
  Tensor x(target, static_cast<size_t>(kRows * kColumns));
  Array<uint8_t> codes(target.device, static_cast<size_t>(kRows * kColumns));
  Array<float> scale(target.device, static_cast<size_t>(kRows));
  const auto time = [&](const char* name, const auto& kernel) {
    Call(launch, kernel);
    launch.stream.Synchronize();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) Call(launch, kernel);
    launch.stream.Synchronize();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 20;
    std::printf("%s: %.3f ms, %.0f GB/s of reading once and writing\n", name, 1e3 * seconds,
                3.0 * kRows * kColumns / seconds / 1e9);
    EXPECT_LT(seconds, 5e-3);
  };
  time("rows", QuantiseRows{.x = x.data(),
                            .rows = kRows,
                            .columns = kColumns,
                            .codes = codes.data(),
                            .scale = scale.data()});
  time("columns", QuantiseColumns{.x = x.data(),
                                  .rows = kRows,
                                  .columns = kColumns,
                                  .codes = codes.data(),
                                  .scale = scale.data()});
}

}  // namespace
}  // namespace plumb::kernels
