#include "kernels/head_norm.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr float kNormEps = 1e-6f;

HeadNormShape Heads(int64_t rows, int32_t q, int32_t k, int32_t q_size, int32_t k_size,
                    float offset) {
  return {.rows = rows,
          .width = int64_t{q} * q_size + 2 * int64_t{k} * k_size,
          .q_parts = q,
          .k_parts = k,
          .q_size = q_size,
          .k_size = k_size,
          .eps = kNormEps,
          .weight_offset = offset};
}

// Every head by itself, with and without the offset; then whole widths, of different lengths.
const std::vector<HeadNormShape> kShapes = {
    Heads(1, 1, 1, 2, 2, 0),     Heads(5, 4, 2, 16, 16, 0), Heads(3, 9, 3, 64, 64, 1),
    Heads(2, 2, 1, 128, 128, 0), Heads(70, 2, 1, 8, 8, 1),  Heads(4, 1, 1, 48, 24, 0),
    Heads(3, 1, 1, 1200, 300, 0)};

std::vector<double> Reference(const HeadNormShape& s, std::vector<double> x,
                              const std::vector<double>& w_q, const std::vector<double>& w_k) {
  for (int64_t r = 0; r < s.rows; ++r) {
    double* row = x.data() + r * s.width;
    for (int32_t p = 0; p < s.parts(); ++p) {
      const bool key = p >= s.q_parts;
      const int32_t size = key ? s.k_size : s.q_size;
      double* part = row + (key ? int64_t{s.q_parts} * s.q_size + int64_t{p - s.q_parts} * s.k_size
                                : int64_t{p} * s.q_size);
      double sum = 0;
      for (int32_t i = 0; i < size; ++i) sum += part[i] * part[i];
      const double scale = 1 / std::sqrt(sum / size + static_cast<double>(s.eps));
      for (int32_t i = 0; i < size; ++i)
        part[i] *= scale * (static_cast<double>(s.weight_offset) + (key ? w_k : w_q)[i]);
    }
  }
  return x;
}

PLUMB_KERNEL_SUITE(HeadNormTest);

TEST_P(HeadNormTest, NormsQueriesAndKeysAndLeavesValues) {
  for (const HeadNormShape& s : kShapes) {
    const auto x = ToDouble(Normal(s.rows * s.width, 1, dtype(), 2.0f));
    const auto w_q = ToDouble(Normal(s.q_size, 2, dtype())),
               w_k = ToDouble(Normal(s.k_size, 3, dtype()));
    Tensor tx(GetParam(), Floats(x)), tq(GetParam(), Floats(w_q)), tk(GetParam(), Floats(w_k));
    Tensor ty(GetParam(), std::vector<float>(s.rows * s.width, kPoison));
    Call(launch(),
         HeadNorm{.shape = s, .x = tx.data(), .w_q = tq.data(), .w_k = tk.data(), .y = ty.data()});
    // As for RmsNorm: sixteen running sums of the squares, halved by the root, then a sum, a
    // division, two products.
    const double steps = static_cast<double>(std::max(s.q_size, s.k_size)) / 32 + 10;
    ExpectClose(ty.Host(), Reference(s, x, w_q, w_k), OutputRounding(dtype()) + steps * kEps,
                8 * kEps, "y");
    Call(launch(),
         HeadNorm{.shape = s, .x = tx.data(), .w_q = tq.data(), .w_k = tk.data(), .y = tx.data()});
    ExpectSameBits(tx.Host(), ty.Host(), "in place");
  }
}

TEST_P(HeadNormTest, BackwardMatchesFiniteDifferences) {
  for (const HeadNormShape& s :
       {Heads(3, 3, 2, 6, 6, 0), Heads(67, 2, 1, 4, 4, 1), Heads(5, 1, 1, 14, 6, 0)}) {
    const auto x = ToDouble(Normal(s.rows * s.width, 1, dtype())),
               d = ToDouble(Normal(s.rows * s.width, 4, dtype()));
    const auto w_q = ToDouble(Normal(s.q_size, 2, dtype())),
               w_k = ToDouble(Normal(s.k_size, 3, dtype()));
    const auto dx = Gradient([&](const auto& v) { return Dot(Reference(s, v, w_q, w_k), d); }, x);
    const auto dq = Gradient([&](const auto& v) { return Dot(Reference(s, x, v, w_k), d); }, w_q);
    const auto dk = Gradient([&](const auto& v) { return Dot(Reference(s, x, w_q, v), d); }, w_k);
    Tensor tx(GetParam(), Floats(x)), tq(GetParam(), Floats(w_q)), tk(GetParam(), Floats(w_k)),
        td(GetParam(), Floats(d));
    Tensor ty(GetParam(), std::vector<float>(x.size(), kPoison));
    Array<float> rstd(device(), static_cast<size_t>(s.rows * s.parts()));
    Array<float> dw_q(device(), std::vector<float>(w_q.size(), 1.0f)),
        dw_k(device(), std::vector<float>(w_k.size(), 2.0f));
    Array<float> scratch(device(),
                         static_cast<size_t>(kHeadNormScratchRows * (s.q_size + s.k_size)));
    Call(launch(), HeadNorm{.shape = s,
                            .x = tx.data(),
                            .w_q = tq.data(),
                            .w_k = tk.data(),
                            .y = ty.data(),
                            .rstd = rstd.data()});
    Call(launch(), HeadNormBackward{.shape = s,
                                    .d = td.data(),
                                    .x = tx.data(),
                                    .w_q = tq.data(),
                                    .w_k = tk.data(),
                                    .rstd = rstd.data(),
                                    .dw_q = dw_q.data(),
                                    .dw_k = dw_k.data(),
                                    .scratch = scratch.data()});
    auto want_q = dq, want_k = dk;
    for (double& v : want_q) v += 1;
    for (double& v : want_k) v += 2;
    // Parts of unit variance have 1 / rms up to 10 here: terms of a gradient up to 100, some ten
    // roundings each; the sums of dw run over up to 134 of them.
    ExpectClose(td.Host(), dx, OutputRounding(dtype()), 64 * kEps * 100, "dx");
    ExpectClose(dw_q.Host(), want_q, kEps, 150 * kEps * 30, "dw_q");
    ExpectClose(dw_k.Host(), want_k, kEps, 150 * kEps * 30, "dw_k");
  }
}

}  // namespace
}  // namespace plumb::kernels
