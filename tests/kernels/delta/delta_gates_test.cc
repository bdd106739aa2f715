#include "kernels/delta/delta_gates.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class DeltaGatesTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Cpu, DeltaGatesTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::kCpu, DType::kBFloat16}),
                         TargetName);

constexpr int64_t kRows = 5, kStride = 11;
constexpr int32_t kHeads = 4;

// sum of d g + e beta; ab has a in columns 1 to 4, b in 6 to 9.
double Loss(const std::vector<double>& ab, const std::vector<double>& a_log,
            const std::vector<double>& bias, const std::vector<double>& d,
            const std::vector<double>& e, std::vector<double>* g, std::vector<double>* beta) {
  double sum = 0;
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t h = 0; h < kHeads; ++h) {
      const double x = ab[r * kStride + 1 + h] + bias[h];
      const double gate = -std::exp(a_log[h]) * std::log1p(std::exp(x)),
                   strength = 1 / (1 + std::exp(-ab[r * kStride + 6 + h]));
      sum += d[r * kHeads + h] * gate + e[r * kHeads + h] * strength;
      if (g) g->push_back(gate);
      if (beta) beta->push_back(strength);
    }
  }
  return sum;
}

TEST_P(DeltaGatesTest, GatesAndTheirGradientsAreTheFormula) {
  auto ab = ToDouble(Normal(kRows * kStride, 1, dtype(), 4.0f));
  ab[1] = 64;  // beyond where the exponential is left out
  const auto a_log = ToDouble(Normal(kHeads, 2, dtype())),
             bias = ToDouble(Normal(kHeads, 3, dtype())), d = ToDouble(Normal(kRows * kHeads, 4)),
             e = ToDouble(Normal(kRows * kHeads, 5));
  std::vector<double> g, beta;
  Loss(ab, a_log, bias, d, e, &g, &beta);
  Tensor x(GetParam(), Floats(ab)), ta(GetParam(), Floats(a_log)), tb(GetParam(), Floats(bias)),
      dx(GetParam(), std::vector<float>(ab.size(), 0.5f));
  Array<float> tg(device(), g.size()), tbeta(device(), g.size()), td(device(), Floats(d)),
      te(device(), Floats(e)), da_log(device(), std::vector<float>(kHeads, 1.0f)),
      dbias(device(), std::vector<float>(kHeads, 2.0f));
  const auto column = [&](Tensor& t, size_t c) {
    return static_cast<std::byte*>(t.data()) + c * ElementSize(dtype());
  };
  Call(launch(), DeltaGates{.a = column(x, 1),
                            .b = column(x, 6),
                            .rows = kRows,
                            .stride = kStride,
                            .heads = kHeads,
                            .a_log = ta.data(),
                            .bias = tb.data(),
                            .g = tg.data(),
                            .beta = tbeta.data()});
  ExpectClose(tg.Host(), g, 8 * kEps, kEps, "g");
  ExpectClose(tbeta.Host(), beta, 8 * kEps, kEps, "beta");
  Call(launch(), DeltaGatesBackward{.a = column(x, 1),
                                    .b = column(x, 6),
                                    .rows = kRows,
                                    .stride = kStride,
                                    .heads = kHeads,
                                    .a_log = ta.data(),
                                    .bias = tb.data(),
                                    .dg = td.data(),
                                    .dbeta = te.data(),
                                    .da = column(dx, 1),
                                    .db = column(dx, 6),
                                    .da_log = da_log.data(),
                                    .dbias = dbias.data()});
  auto dab =
      Gradient([&](const auto& v) { return Loss(v, a_log, bias, d, e, nullptr, nullptr); }, ab);
  for (size_t i = 0; i < dab.size(); ++i) {
    const size_t c = i % kStride;
    if (!((c >= 1 && c < 5) || (c >= 6 && c < 10))) dab[i] = 0.5;
  }
  auto of_log =
      Gradient([&](const auto& v) { return Loss(ab, v, bias, d, e, nullptr, nullptr); }, a_log);
  auto of_bias =
      Gradient([&](const auto& v) { return Loss(ab, a_log, v, d, e, nullptr, nullptr); }, bias);
  for (double& v : of_log) v += 1;
  for (double& v : of_bias) v += 2;
  ExpectClose(dx.Host(), dab, OutputRounding(dtype()) + 1e-6, 1e-6, "da, db");
  ExpectClose(da_log.Host(), of_log, 1e-6, 1e-5, "da_log");
  ExpectClose(dbias.Host(), of_bias, 1e-6, 1e-5, "dbias");
}

}  // namespace
}  // namespace plumb::kernels
