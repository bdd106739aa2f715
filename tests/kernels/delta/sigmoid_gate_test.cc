#include "kernels/delta/sigmoid_gate.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

TEST(SigmoidGateTest, ValuesAndGradientsAreTheFormula) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Target target{Device::kCpu, dtype};
    const Launch launch{.stream = Device::kCpu, .dtype = dtype};
    const auto x = ToDouble(Normal(37, 1, dtype)), gate = ToDouble(Normal(37, 2, dtype, 4.0f)),
               d = ToDouble(Normal(37, 3, dtype));
    std::vector<double> y(37), dx(37), dgate(37);
    for (size_t i = 0; i < 37; ++i) {
      const double s = 1 / (1 + std::exp(-gate[i]));
      y[i] = x[i] * s;
      dx[i] = d[i] * s;
      dgate[i] = d[i] * x[i] * s * (1 - s);
    }
    Tensor tx(target, Floats(x)), tg(target, Floats(gate)), td(target, Floats(d)), ty(target, 37);
    Call(launch, SigmoidGate{.x = tx.data(), .gate = tg.data(), .n = 37, .y = ty.data()});
    ExpectClose(ty.Host(), y, OutputRounding(dtype) + 8 * kEps, kEps, "y");
    Call(launch, SigmoidGateBackward{.dy = td.data(),
                                     .x = tx.data(),
                                     .gate = tg.data(),
                                     .n = 37,
                                     .dx = td.data(),
                                     .dgate = tg.data()});
    ExpectClose(td.Host(), dx, OutputRounding(dtype) + 8 * kEps, kEps, "dx");
    ExpectClose(tg.Host(), dgate, OutputRounding(dtype) + 8 * kEps, 8 * kEps, "dgate");
  }
}

}  // namespace
}  // namespace plumb::kernels
