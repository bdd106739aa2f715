#include "kernels/glu.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

double Gate(double g, Activation activation) {
  if (activation == Activation::kSilu) return g / (1 + std::exp(-g));
  return g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
}

std::vector<double> Reference(const std::vector<double>& gate_up, int64_t rows, int64_t ffn,
                              Activation activation) {
  std::vector<double> out(rows * ffn);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < ffn; ++i) {
      const double g = gate_up[r * 2 * ffn + i];
      out[r * ffn + i] = Gate(g, activation) * gate_up[r * 2 * ffn + ffn + i];
    }
  }
  return out;
}

PLUMB_KERNEL_SUITE(GluTest);

TEST_P(GluTest, ForwardMatchesDouble) {
  for (const auto& [rows, ffn] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 17}, {2, 64}, {7, 1536}, {5, 333}}) {
    auto x = ToDouble(Normal(rows * 2 * ffn, 1, dtype(), 4.0f));
    x[0] = -100.0;  // exp(100) overflows fp32: the result is -0, not NaN
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      const auto want = Reference(x, rows, ffn, activation);
      Tensor tx(GetParam(), Floats(x)), out(GetParam(), std::vector<float>(rows * ffn, kPoison));
      Call(launch(), Glu{.gate_up = tx.data(),
                         .rows = rows,
                         .ffn = ffn,
                         .activation = activation,
                         .out = out.data()});
      // exp within 2 ulp, a sum, a quotient, a product; where exp dominates the denominator its
      // error is all there is.
      // GELU: an exponent h up to 88 carries 4 roundings of its own, and exp turns h eps into a
      // relative error; below -5 or so the double reference itself has lost the tail to 1 + tanh.
      const bool silu = activation == Activation::kSilu;
      ExpectClose(out.Host(), want, OutputRounding(dtype()) + (silu ? 10 : 400) * kEps,
                  silu ? 1e-36 : 1e-13, "out");
    }
  }
}

TEST_P(GluTest, BackwardMatchesFiniteDifferencesAlsoInPlace) {
  for (const auto& [rows, ffn] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {3, 24}, {2, 37}}) {
    const auto x = ToDouble(Normal(rows * 2 * ffn, 2, dtype(), 2.0f)),
               dout = ToDouble(Normal(rows * ffn, 3, dtype()));
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      const auto want = Gradient(
          [&](const auto& v) { return Dot(Reference(v, rows, ffn, activation), dout); }, x);
      Tensor tx(GetParam(), Floats(x)), td(GetParam(), Floats(dout)),
          dx(GetParam(), std::vector<float>(rows * 2 * ffn, kPoison));
      Call(launch(), GluBackward{.dout = td.data(),
                                 .gate_up = tx.data(),
                                 .rows = rows,
                                 .ffn = ffn,
                                 .activation = activation,
                                 .dgate_up = dx.data()});
      // Products of numbers up to 8; 1 + g (1 - s) cancels near its zero, hence the absolute part.
      ExpectClose(dx.Host(), want, OutputRounding(dtype()), 16 * kEps * 32, "dgate_up");
      Call(launch(), GluBackward{.dout = td.data(),
                                 .gate_up = tx.data(),
                                 .rows = rows,
                                 .ffn = ffn,
                                 .activation = activation,
                                 .dgate_up = tx.data()});
      ExpectSameBits(tx.Host(), dx.Host(), "in place");
    }
  }
}

// The backward gives the forward's output once more, bit for bit, also over dout.
TEST_P(GluTest, BackwardGivesTheActivationsAgain) {
  for (const auto& [rows, ffn] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 24}, {2, 37}, {7, 1536}}) {
    const auto x = Normal(rows * 2 * ffn, 2, dtype(), 4.0f), dout = Normal(rows * ffn, 3, dtype());
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      Tensor tx(GetParam(), x), td(GetParam(), dout), dx(GetParam(), x), want(GetParam(), x),
          out(GetParam(), std::vector<float>(rows * ffn, kPoison)),
          act(GetParam(), std::vector<float>(rows * ffn, kPoison));
      Call(launch(), Glu{.gate_up = tx.data(),
                         .rows = rows,
                         .ffn = ffn,
                         .activation = activation,
                         .out = out.data()});
      GluBackward backward{.dout = td.data(),
                           .gate_up = tx.data(),
                           .rows = rows,
                           .ffn = ffn,
                           .activation = activation,
                           .dgate_up = want.data()};
      Call(launch(), backward);
      backward.dgate_up = dx.data();
      backward.act = act.data();
      Call(launch(), backward);
      ExpectSameBits(act.Host(), out.Host(), "act");
      ExpectSameBits(dx.Host(), want.Host(), "dgate_up");
      backward.dgate_up = tx.data();
      backward.act = td.data();
      Call(launch(), backward);
      ExpectSameBits(td.Host(), out.Host(), "act over dout");
      ExpectSameBits(tx.Host(), want.Host(), "dgate_up over gate_up");
    }
  }
}

}  // namespace
}  // namespace plumb::kernels
