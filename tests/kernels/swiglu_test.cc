#include "kernels/swiglu.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

std::vector<double> Reference(const std::vector<double>& gate_up, int64_t rows, int64_t ffn) {
  std::vector<double> out(rows * ffn);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < ffn; ++i) {
      const double g = gate_up[r * 2 * ffn + i];
      out[r * ffn + i] = g / (1 + std::exp(-g)) * gate_up[r * 2 * ffn + ffn + i];
    }
  }
  return out;
}

PLUMB_KERNEL_SUITE(Swiglu);

TEST_P(Swiglu, ForwardMatchesDouble) {
  for (const auto& [rows, ffn] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 17}, {2, 64}, {7, 1536}, {5, 333}}) {
    auto x = ToDouble(Normal(rows * 2 * ffn, 1, dtype(), 4.0f));
    x[0] = -100.0;  // exp(100) overflows fp32: the result is -0, not NaN
    const auto want = Reference(x, rows, ffn);
    Tensor tx(GetParam(), Floats(x)), out(GetParam(), std::vector<float>(rows * ffn, kPoison));
    SwigluForward(launch(), tx.data(), rows, ffn, out.data());
    // exp within 2 ulp, a sum, a quotient, a product; where exp dominates the denominator its error is all there is.
    ExpectClose(out.Host(), want, OutputRounding(dtype()) + 10 * kEps, 1e-36, "out");
  }
}

TEST_P(Swiglu, BackwardMatchesFiniteDifferencesAlsoInPlace) {
  for (const auto& [rows, ffn] : std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {3, 24}, {2, 37}}) {
    const auto x = ToDouble(Normal(rows * 2 * ffn, 2, dtype(), 2.0f)), dout = ToDouble(Normal(rows * ffn, 3, dtype()));
    const auto want = Gradient([&](const auto& v) { return Dot(Reference(v, rows, ffn), dout); }, x);
    Tensor tx(GetParam(), Floats(x)), td(GetParam(), Floats(dout)), dx(GetParam(), std::vector<float>(rows * 2 * ffn, kPoison));
    SwigluBackward(launch(), td.data(), tx.data(), rows, ffn, dx.data());
    // Products of numbers up to 8; 1 + g (1 - s) cancels near its zero, hence the absolute part.
    ExpectClose(dx.Host(), want, OutputRounding(dtype()), 16 * kEps * 32, "dgate_up");
    SwigluBackward(launch(), td.data(), tx.data(), rows, ffn, tx.data());
    ExpectSameBits(tx.Host(), dx.Host(), "in place");
  }
}

}  // namespace
}  // namespace plumb::kernels
