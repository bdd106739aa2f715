#include "kernels/delta/gated_norm.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class GatedNormTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Cpu, GatedNormTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::kCpu, DType::kBFloat16}),
                         TargetName);

constexpr float kNormEps = 1e-6f;
struct Size {
  int64_t rows;
  int32_t heads, dim;
  int64_t stride() const { return int64_t{heads} * dim + 3; }
  size_t all() const { return static_cast<size_t>(rows * heads * dim); }
};

std::vector<double> Reference(const Size& s, const std::vector<double>& x,
                              const std::vector<double>& z, const std::vector<double>& w) {
  std::vector<double> y(s.all());
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int32_t h = 0; h < s.heads; ++h) {
      const int64_t at = (r * s.heads + h) * s.dim;
      double sum = 0;
      for (int32_t i = 0; i < s.dim; ++i) sum += std::pow(x[static_cast<size_t>(at + i)], 2);
      const double rstd = 1 / std::sqrt(sum / s.dim + static_cast<double>(kNormEps));
      for (int32_t i = 0; i < s.dim; ++i) {
        const double gate = z[static_cast<size_t>(r * s.stride() + int64_t{h} * s.dim + i)];
        y[static_cast<size_t>(at + i)] = w[static_cast<size_t>(i)] *
                                         x[static_cast<size_t>(at + i)] * rstd * gate /
                                         (1 + std::exp(-gate));
      }
    }
  }
  return y;
}

TEST_P(GatedNormTest, NormsHeadsAndGatesThem) {
  for (const Size& s : {Size{3, 2, 5}, Size{2, 4, 128}, Size{70, 1, 16}}) {
    const auto x = ToDouble(Normal(s.all(), 1, dtype())),
               z = ToDouble(Normal(static_cast<size_t>(s.rows * s.stride()), 2, dtype(), 3.0f)),
               w = ToDouble(Normal(static_cast<size_t>(s.dim), 3, dtype()));
    Tensor tx(GetParam(), Floats(x)), tz(GetParam(), Floats(z)), tw(GetParam(), Floats(w)),
        ty(GetParam(), s.all());
    Call(launch(), GatedNorm{.x = tx.data(),
                             .z = tz.data(),
                             .w = tw.data(),
                             .rows = s.rows,
                             .z_stride = s.stride(),
                             .heads = s.heads,
                             .dim = s.dim,
                             .eps = kNormEps,
                             .y = ty.data()});
    ExpectClose(ty.Host(), Reference(s, x, z, w), OutputRounding(dtype()) + 20 * kEps, 20 * kEps,
                "y");
  }
}

TEST_P(GatedNormTest, BackwardMatchesFiniteDifferences) {
  for (const Size& s : {Size{3, 2, 5}, Size{70, 2, 4}}) {
    const auto x = ToDouble(Normal(s.all(), 1, dtype())),
               z = ToDouble(Normal(static_cast<size_t>(s.rows * s.stride()), 2, dtype())),
               w = ToDouble(Normal(static_cast<size_t>(s.dim), 3, dtype())),
               d = ToDouble(Normal(s.all(), 4, dtype()));
    const auto dx = Gradient([&](const auto& v) { return Dot(Reference(s, v, z, w), d); }, x);
    auto dz = Gradient([&](const auto& v) { return Dot(Reference(s, x, v, w), d); }, z);
    auto dw = Gradient([&](const auto& v) { return Dot(Reference(s, x, z, v), d); }, w);
    Tensor tx(GetParam(), Floats(x)), tz(GetParam(), Floats(z)), tw(GetParam(), Floats(w)),
        td(GetParam(), Floats(d)), tdz(GetParam(), std::vector<float>(z.size(), 0.5f));
    Array<float> tdw(device(), std::vector<float>(w.size(), 1.0f)),
        scratch(device(), static_cast<size_t>(kGatedNormScratchRows * s.dim));
    Call(launch(), GatedNormBackward{.dy = td.data(),
                                     .x = tx.data(),
                                     .z = tz.data(),
                                     .w = tw.data(),
                                     .rows = s.rows,
                                     .z_stride = s.stride(),
                                     .heads = s.heads,
                                     .dim = s.dim,
                                     .eps = kNormEps,
                                     .dx = td.data(),
                                     .dz = tdz.data(),
                                     .dw = tdw.data(),
                                     .scratch = scratch.data()});
    for (size_t i = 0; i < dz.size(); ++i) {
      if (static_cast<int64_t>(i) % s.stride() >= s.stride() - 3) dz[i] = 0.5;
    }
    for (double& v : dw) v += 1;
    // As HeadNorm's: terms of a gradient up to 100, some ten roundings each.
    ExpectClose(td.Host(), dx, OutputRounding(dtype()), 64 * kEps * 100, "dx");
    ExpectClose(tdz.Host(), dz, OutputRounding(dtype()), 64 * kEps * 100, "dz");
    ExpectClose(tdw.Host(), dw, kEps, 150 * kEps * 30, "dw");
  }
}

}  // namespace
}  // namespace plumb::kernels
