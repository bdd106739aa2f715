#include "kernels/rms_norm.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr float kNormEps = 1e-5f;

std::vector<double> Reference(const std::vector<double>& x, const std::vector<double>& w,
                              int64_t rows, int64_t hidden, double offset = 0) {
  std::vector<double> y(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < hidden; ++i) sum += x[r * hidden + i] * x[r * hidden + i];
    const double scale =
        1 / std::sqrt(sum / static_cast<double>(hidden) + static_cast<double>(kNormEps));
    for (int64_t i = 0; i < hidden; ++i)
      y[r * hidden + i] = x[r * hidden + i] * scale * (offset + w[i]);
  }
  return y;
}

PLUMB_KERNEL_SUITE(RmsNormTest);

TEST_P(RmsNormTest, ForwardMatchesDouble) {
  for (const auto& [rows, hidden] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                             {1, 17},
                                                                             {3, 64},
                                                                             {5, 130},
                                                                             {2, 577},
                                                                             {33, 576},
                                                                             {4, 1023},
                                                                             {2, 4096},
                                                                             {1, 9001}}) {
    const auto x = ToDouble(Normal(rows * hidden, 1, dtype(), 3.0f)),
               w = ToDouble(Normal(hidden, 2, dtype()));
    const auto want = Reference(x, w, rows, hidden);
    Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)),
        ty(GetParam(), std::vector<float>(rows * hidden, kPoison));
    Array<float> rstd(device(), std::vector<float>(rows, -1.0f));
    Call(launch(), RmsNorm{.x = tx.data(),
                           .w = tw.data(),
                           .rows = rows,
                           .hidden = hidden,
                           .eps = kNormEps,
                           .y = ty.data(),
                           .rstd = rstd.data()});
    // Sixteen running sums of at most hidden / 16 squares, halved by the root; then a division and
    // two products.
    const double steps = static_cast<double>(hidden) / 32 + 8;
    const std::string what = "y of " + std::to_string(rows) + "x" + std::to_string(hidden);
    ExpectClose(ty.Host(), want, OutputRounding(dtype()) + steps * kEps, 1e-30, what);
    // With a copy of what goes in.
    Tensor copy(GetParam(), std::vector<float>(rows * hidden, kPoison)),
        beside(GetParam(), std::vector<float>(rows * hidden, kPoison));
    Call(launch(), RmsNorm{.x = tx.data(),
                           .w = tw.data(),
                           .rows = rows,
                           .hidden = hidden,
                           .eps = kNormEps,
                           .y = beside.data(),
                           .copy = copy.data()});
    ExpectSameBits(beside.Host(), ty.Host(), what + " with a copy");
    ExpectSameBits(copy.Host(), tx.Host(), what + ": the copy");
    // In place, and without rstd.
    Call(launch(), RmsNorm{.x = tx.data(),
                           .w = tw.data(),
                           .rows = rows,
                           .hidden = hidden,
                           .eps = kNormEps,
                           .y = tx.data()});
    ExpectSameBits(tx.Host(), ty.Host(), what + " in place");
  }
}

TEST_P(RmsNormTest, BackwardMatchesFiniteDifferences) {
  for (const auto& [rows, hidden] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {3, 33}, {67, 16}}) {
    const auto x = ToDouble(Normal(rows * hidden, 3, dtype())),
               w = ToDouble(Normal(hidden, 4, dtype()));
    const auto dy = ToDouble(Normal(rows * hidden, 5, dtype())),
               before = ToDouble(Normal(rows * hidden, 6, dtype()));
    const auto dw_before = ToDouble(Normal(hidden, 7, DType::kFloat32));
    const auto dx =
        Gradient([&](const auto& v) { return Dot(Reference(v, w, rows, hidden), dy); }, x);
    const auto dw =
        Gradient([&](const auto& v) { return Dot(Reference(x, v, rows, hidden), dy); }, w);
    for (const bool accumulate : {false, true}) {
      Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), ty(GetParam(), Floats(x)),
          tdy(GetParam(), Floats(dy)), tdx(GetParam(), Floats(before));
      Array<float> rstd(device(), std::vector<float>(rows)), tdw(device(), Floats(dw_before));
      Array<float> scratch(device(), std::vector<float>(kRmsNormScratchRows * hidden, NAN));
      Call(launch(), RmsNorm{.x = tx.data(),
                             .w = tw.data(),
                             .rows = rows,
                             .hidden = hidden,
                             .eps = kNormEps,
                             .y = ty.data(),
                             .rstd = rstd.data()});
      Call(launch(), RmsNormBackward{.dy = tdy.data(),
                                     .x = tx.data(),
                                     .w = tw.data(),
                                     .rstd = rstd.data(),
                                     .rows = rows,
                                     .hidden = hidden,
                                     .accumulate_dx = accumulate,
                                     .dx = tdx.data(),
                                     .dw = tdw.data(),
                                     .scratch = scratch.data()});
      std::vector<double> want = dx, want_dw = dw;
      for (size_t i = 0; i < want.size() && accumulate; ++i) want[i] += before[i];
      for (size_t i = 0; i < want_dw.size(); ++i) want_dw[i] += dw_before[i];
      // Terms of both sums are of size <= 30 here (rows of unit variance); 64 roundings cover sums
      // of 67.
      ExpectClose(tdx.Host(), want, OutputRounding(dtype()), 64 * kEps * 30, "dx");
      ExpectClose(tdw.Host(), want_dw, kEps, 80 * kEps * 30, "dw");
    }
  }
}

// Against the formula in double: rows that blocks share and that they do not, widths for every form
// of the kernel (packs of 16 bytes up to 1,024 a row, more, and none).
TEST_P(RmsNormTest, BackwardMatchesTheFormula) {
  for (const auto& [rows, hidden] : std::vector<std::pair<int64_t, int64_t>>{{1, 8},
                                                                             {3, 8192},
                                                                             {2, 8200},
                                                                             {40, 3584},
                                                                             {511, 24},
                                                                             {600, 896},
                                                                             {1100, 64},
                                                                             {1100, 63}}) {
    const auto x = ToDouble(Normal(rows * hidden, 3, dtype())),
               w = ToDouble(Normal(hidden, 4, dtype())),
               dy = ToDouble(Normal(rows * hidden, 5, dtype())),
               before = ToDouble(Normal(rows * hidden, 6, dtype()));
    std::vector<double> dx(x.size()), dw(w.size(), 1.0);
    std::vector<float> scales;
    for (int64_t r = 0; r < rows; ++r) {
      double square = 0, dot = 0;
      for (int64_t i = 0; i < hidden; ++i) {
        const int64_t at = r * hidden + i;
        square += x[at] * x[at];
        dot += dy[at] * (0.5 + w[i]) * x[at];
      }
      const auto h = static_cast<double>(hidden);
      const auto s = static_cast<double>(static_cast<float>(1 / std::sqrt(square / h + 1e-5)));
      scales.push_back(static_cast<float>(s));
      for (int64_t i = 0; i < hidden; ++i) {
        const int64_t at = r * hidden + i;
        dx[at] = dy[at] * (0.5 + w[i]) * s - x[at] * dot * s * s * s / h;
        dw[i] += dy[at] * x[at] * s;
      }
    }
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(hidden));
      Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), tdy(GetParam(), Floats(dy)),
          tdx(GetParam(), Floats(before));
      Array<float> rstd(device(), scales), tdw(device(), std::vector<float>(hidden, 1.0f)),
          scratch(device(), std::vector<float>(kRmsNormScratchRows * hidden, NAN));
      RmsNormBackward backward{.dy = tdy.data(),
                               .x = tx.data(),
                               .w = tw.data(),
                               .rstd = rstd.data(),
                               .rows = rows,
                               .hidden = hidden,
                               .weight_offset = 0.5f,
                               .accumulate_dx = accumulate,
                               .dx = tdx.data(),
                               .dw = tdw.data(),
                               .scratch = scratch.data()};
      Call(launch(), backward);
      std::vector<double> want = dx;
      for (size_t i = 0; i < want.size() && accumulate; ++i) want[i] += before[i];
      // A dot product of terms of size 1 in sixteen lanes at least, over hidden, times x below 5;
      // a row of 8 numbers may be small, its rstd 3.
      const double steps = static_cast<double>(hidden) / 16 + 64;
      ExpectClose(tdx.Host(), want, OutputRounding(dtype()), steps * kEps * 60, "dx");
      // Blocks of rows and then their sums: 150 additions at most one after the other, of sums
      // below 15 sqrt(rows).
      ExpectClose(tdw.Host(), dw, kEps, 150 * kEps * 15 * std::sqrt(static_cast<double>(rows)),
                  "dw");
      if (accumulate) continue;
      const auto first = tdx.Host();
      backward.dw = nullptr;
      backward.dx = tdy.data();
      Call(launch(), backward);
      ExpectSameBits(tdy.Host(), first, "over dy, without dw");
    }
  }
}

TEST_P(RmsNormTest, WeightsMayBeDistancesFromOne) {
  const int64_t rows = 5, hidden = 33;
  const auto x = ToDouble(Normal(rows * hidden, 3, dtype())),
             w = ToDouble(Normal(hidden, 4, dtype()));
  const auto dy = ToDouble(Normal(rows * hidden, 5, dtype()));
  Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), ty(GetParam(), Floats(x)),
      tdy(GetParam(), Floats(dy));
  Array<float> rstd(device(), std::vector<float>(rows)),
      tdw(device(), std::vector<float>(hidden, 0.0f));
  Array<float> scratch(device(), std::vector<float>(kRmsNormScratchRows * hidden, NAN));
  Call(launch(), RmsNorm{.x = tx.data(),
                         .w = tw.data(),
                         .rows = rows,
                         .hidden = hidden,
                         .eps = kNormEps,
                         .weight_offset = 1,
                         .y = ty.data(),
                         .rstd = rstd.data()});
  ExpectClose(ty.Host(), Reference(x, w, rows, hidden, 1), OutputRounding(dtype()) + 10 * kEps,
              8 * kEps, "y");
  Call(launch(), RmsNormBackward{.dy = tdy.data(),
                                 .x = tx.data(),
                                 .w = tw.data(),
                                 .rstd = rstd.data(),
                                 .rows = rows,
                                 .hidden = hidden,
                                 .weight_offset = 1,
                                 .dx = tdy.data(),
                                 .dw = tdw.data(),
                                 .scratch = scratch.data()});  // in place
  const auto dx =
      Gradient([&](const auto& v) { return Dot(Reference(v, w, rows, hidden, 1), dy); }, x);
  const auto dw =
      Gradient([&](const auto& v) { return Dot(Reference(x, v, rows, hidden, 1), dy); }, w);
  ExpectClose(tdy.Host(), dx, OutputRounding(dtype()), 64 * kEps * 30, "dx");
  ExpectClose(tdw.Host(), dw, kEps, 80 * kEps * 30, "dw");
}

TEST_P(RmsNormTest, ARowDoesNotDependOnItsBatch) {
  const int64_t hidden = 576, most = 32;
  const auto x = ToDouble(Normal(most * hidden, 8, dtype())),
             w = ToDouble(Normal(hidden, 9, dtype()));
  Tensor tw(GetParam(), Floats(w));
  std::vector<float> first;
  for (const int64_t rows : {1, 2, 3, 5, 32}) {
    Tensor tx(GetParam(), Floats({x.begin(), x.begin() + rows * hidden})),
        ty(GetParam(), std::vector<float>(rows * hidden, kPoison));
    Call(launch(), RmsNorm{.x = tx.data(),
                           .w = tw.data(),
                           .rows = rows,
                           .hidden = hidden,
                           .eps = kNormEps,
                           .y = ty.data()});
    std::vector<float> row = ty.Host();
    row.resize(hidden);
    if (first.empty()) first = row;
    ExpectSameBits(row, first, std::to_string(rows) + " rows");
  }
}

}  // namespace
}  // namespace plumb::kernels
