#include "kernels/layer_norm.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr float kNormEps = 1e-5f;

std::vector<double> Reference(const std::vector<double>& x, const std::vector<double>& w,
                              const std::vector<double>& b, int64_t rows, int64_t hidden) {
  std::vector<double> y(x.size());
  const auto n = static_cast<double>(hidden);
  for (int64_t r = 0; r < rows; ++r) {
    const double* in = x.data() + r * hidden;
    double mean = 0, square = 0;
    for (int64_t i = 0; i < hidden; ++i) mean += in[i] / n;
    for (int64_t i = 0; i < hidden; ++i) square += (in[i] - mean) * (in[i] - mean) / n;
    const double scale = 1 / std::sqrt(square + static_cast<double>(kNormEps));
    for (int64_t i = 0; i < hidden; ++i)
      y[static_cast<size_t>(r * hidden + i)] =
          (in[i] - mean) * scale * w[static_cast<size_t>(i)] + b[static_cast<size_t>(i)];
  }
  return y;
}

PLUMB_KERNEL_SUITE(LayerNormTest);

TEST_P(LayerNormTest, ForwardMatchesDouble) {
  for (const auto& [rows, hidden] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 2}, {1, 17}, {3, 64}, {5, 130}, {33, 576}, {4, 1023}, {1, 9001}}) {
    // A mean that is not 0: a variance taken as the mean of squares would show.
    auto values = Normal(rows * hidden, 1, dtype());
    for (float& v : values) v = dtype() == DType::kBFloat16 ? ToFloat(ToBFloat16(v + 2)) : v + 2;
    const auto x = ToDouble(values), w = ToDouble(Normal(hidden, 2, dtype())),
               b = ToDouble(Normal(hidden, 3, dtype()));
    const auto want = Reference(x, w, b, rows, hidden);
    Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), tb(GetParam(), Floats(b)),
        ty(GetParam(), std::vector<float>(rows * hidden, kPoison));
    Array<float> rstd(device(), std::vector<float>(rows, -1.0f));
    Call(launch(), LayerNorm{.x = tx.data(),
                             .w = tw.data(),
                             .b = tb.data(),
                             .rows = rows,
                             .hidden = hidden,
                             .eps = kNormEps,
                             .y = ty.data(),
                             .rstd = rstd.data()});
    // Sums of hidden / 16 terms in each of sixteen lanes; the mean, near 2, errs by that much of
    // itself, and values of up to 4 deviations and weights of up to 4 carry it on.
    const double steps = static_cast<double>(hidden) / 16 + 16;
    const std::string what = "y of " + std::to_string(rows) + "x" + std::to_string(hidden);
    ExpectClose(ty.Host(), want, OutputRounding(dtype()) + steps * kEps, 8 * steps * kEps, what);
    // In place, and without rstd.
    Call(launch(), LayerNorm{.x = tx.data(),
                             .w = tw.data(),
                             .b = tb.data(),
                             .rows = rows,
                             .hidden = hidden,
                             .eps = kNormEps,
                             .y = tx.data()});
    ExpectSameBits(tx.Host(), ty.Host(), what + " in place");
  }
}

TEST_P(LayerNormTest, BackwardMatchesFiniteDifferences) {
  for (const auto& [rows, hidden] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {3, 33}, {67, 16}}) {
    const auto x = ToDouble(Normal(rows * hidden, 3, dtype())),
               w = ToDouble(Normal(hidden, 4, dtype())), b = ToDouble(Normal(hidden, 8, dtype()));
    const auto dy = ToDouble(Normal(rows * hidden, 5, dtype())),
               before = ToDouble(Normal(rows * hidden, 6, dtype()));
    const auto dw_before = ToDouble(Normal(hidden, 7, DType::kFloat32)),
               db_before = ToDouble(Normal(hidden, 9, DType::kFloat32));
    const auto dx =
        Gradient([&](const auto& v) { return Dot(Reference(v, w, b, rows, hidden), dy); }, x);
    const auto dw =
        Gradient([&](const auto& v) { return Dot(Reference(x, v, b, rows, hidden), dy); }, w);
    const auto db =
        Gradient([&](const auto& v) { return Dot(Reference(x, w, v, rows, hidden), dy); }, b);
    for (const bool accumulate : {false, true}) {
      Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), tb(GetParam(), Floats(b)),
          ty(GetParam(), Floats(x)), tdy(GetParam(), Floats(dy)), tdx(GetParam(), Floats(before));
      Array<float> rstd(device(), std::vector<float>(rows)), tdw(device(), Floats(dw_before)),
          tdb(device(), Floats(db_before));
      Array<float> scratch(device(), std::vector<float>(2 * kLayerNormBlocks * hidden, NAN));
      Call(launch(), LayerNorm{.x = tx.data(),
                               .w = tw.data(),
                               .b = tb.data(),
                               .rows = rows,
                               .hidden = hidden,
                               .eps = kNormEps,
                               .y = ty.data(),
                               .rstd = rstd.data()});
      LayerNormBackward backward{.dy = tdy.data(),
                                 .x = tx.data(),
                                 .w = tw.data(),
                                 .rstd = rstd.data(),
                                 .rows = rows,
                                 .hidden = hidden,
                                 .accumulate_dx = accumulate,
                                 .dx = tdx.data(),
                                 .dw = tdw.data(),
                                 .db = tdb.data(),
                                 .scratch = scratch.data()};
      Call(launch(), backward);
      std::vector<double> want = dx, want_dw = dw, want_db = db;
      for (size_t i = 0; i < want.size() && accumulate; ++i) want[i] += before[i];
      for (size_t i = 0; i < want_dw.size(); ++i) {
        want_dw[i] += dw_before[i];
        want_db[i] += db_before[i];
      }
      // As for RMSNorm: terms of these sums are of size <= 30, and one sum more enters each.
      ExpectClose(tdx.Host(), want, OutputRounding(dtype()), 96 * kEps * 30, "dx");
      ExpectClose(tdw.Host(), want_dw, kEps, 96 * kEps * 30, "dw");
      ExpectClose(tdb.Host(), want_db, kEps, 96 * kEps * 30, "db");
      if (accumulate) continue;
      // dx in place of dy, and no weights' gradients.
      const auto apart = tdx.Host();
      backward.dx = tdy.data();
      backward.dw = backward.db = nullptr;
      Call(launch(), backward);
      ExpectSameBits(tdy.Host(), apart, "in place");
      ExpectClose(tdw.Host(), want_dw, kEps, 96 * kEps * 30, "dw, not wanted");
    }
  }
}

TEST_P(LayerNormTest, ARowDoesNotDependOnItsBatch) {
  const int64_t hidden = 576, most = 32;
  const auto x = ToDouble(Normal(most * hidden, 8, dtype())),
             w = ToDouble(Normal(hidden, 9, dtype()));
  Tensor tw(GetParam(), Floats(w));
  std::vector<float> first;
  for (const int64_t rows : {1, 2, 3, 5, 32}) {
    Tensor tx(GetParam(), Floats({x.begin(), x.begin() + rows * hidden})),
        ty(GetParam(), std::vector<float>(rows * hidden, kPoison));
    Call(launch(), LayerNorm{.x = tx.data(),
                             .w = tw.data(),
                             .b = tw.data(),
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
