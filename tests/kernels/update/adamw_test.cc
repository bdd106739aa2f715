#include "kernels/update/adamw.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(Adamw);

TEST_P(Adamw, FollowsThePaperForSeveralSteps) {
  for (const size_t n : {1, 64, 1000, 20001}) {
    const auto start = Normal(n, 1);
    std::vector<uint8_t> decays((n + 63) / 64);
    for (size_t b = 0; b < decays.size(); ++b) decays[b] = b % 2;
    Array<uint8_t> mask(device(), decays);
    Array<float> master(device(), start), m(device(), std::vector<float>(n, 0.0f)),
        v(device(), std::vector<float>(n, 0.0f));
    Tensor param(GetParam(), n);
    auto x = ToDouble(start);
    std::vector<double> dm(n), dv(n);
    AdamwOptions o{.learning_rate = 1e-2f, .weight_decay = 0.1f, .grad_scale = 0.5f};
    for (o.step = 1; o.step <= 3; ++o.step) {
      const auto g = Normal(n, static_cast<uint64_t>(10 + o.step));
      Array<float> grad(device(), g);
      Call(launch(), AdamwUpdate{.master = master.data(),
                                 .m = m.data(),
                                 .v = v.data(),
                                 .grad = grad.data(),
                                 .decay_mask = mask.data(),
                                 .n = static_cast<int64_t>(n),
                                 .options = o,
                                 .param = param.data()});
      const double b1 = static_cast<double>(o.beta1), b2 = static_cast<double>(o.beta2),
                   lr = static_cast<double>(o.learning_rate);
      for (size_t i = 0; i < n; ++i) {
        const double d = static_cast<double>(g[i]) * 0.5;
        dm[i] = b1 * dm[i] + (1 - b1) * d;
        dv[i] = b2 * dv[i] + (1 - b2) * d * d;
        const double mh = dm[i] / (1 - std::pow(b1, o.step)),
                     vh = dv[i] / (1 - std::pow(b2, o.step));
        if (decays[i / 64]) x[i] -= lr * static_cast<double>(o.weight_decay) * x[i];
        x[i] -= lr * mh / (std::sqrt(vh) + static_cast<double>(o.eps));
      }
    }
    // A step moves by lr times at most ~2 with about ten roundings; 1 - beta in fp32 is off by eps
    // / (1 - beta) relative.
    ExpectClose(master.Host(), x, 4 * kEps, 3 * 1e-2 * 100 * kEps, "master");
    ExpectClose(m.Host(), dm, 60 * kEps, 60 * kEps * 0.2, "m");  // terms of size 0.2 cancel
    ExpectClose(v.Host(), dv, 60 * kEps, 1e-9, "v");
    std::vector<double> rounded;
    for (const float f : master.Host())
      rounded.push_back(dtype() == DType::kBFloat16 ? ToFloat(ToBFloat16(f)) : f);
    ExpectClose(param.Host(), rounded, 0, 1e-300, "param is the rounded master");
  }
}

TEST_P(Adamw, WithoutMaskAndParamEverythingDecays) {
  const auto start = Normal(300, 1);
  Array<float> master(device(), start), zero(device(), std::vector<float>(300, 0.0f)),
      m(device(), std::vector<float>(300, 0.0f)), v(device(), std::vector<float>(300, 0.0f));
  Call(launch(), AdamwUpdate{.master = master.data(),
                             .m = m.data(),
                             .v = v.data(),
                             .grad = zero.data(),
                             .n = 300,
                             .options = {.learning_rate = 0.5f, .weight_decay = 0.5f},
                             .param = nullptr});
  std::vector<double> expected;
  for (const float f : start) expected.push_back(0.75 * static_cast<double>(f));
  ExpectClose(master.Host(), expected, 2 * kEps, 0, "decay only");
}

TEST_P(Adamw, SumOfSquaresIsExactEnoughAndFixed) {
  for (const size_t n : {0, 1, 5000, 100003}) {
    auto g = Normal(n, 3);
    double expected = 0;
    for (const float f : g) expected += static_cast<double>(f) * static_cast<double>(f);
    Array<float> grad(device(), g);
    std::vector<double> seen;
    WithThreads([&](int) {
      Array<double> scratch(device(), kNormScratch), out(device(), 1);
      Call(launch(), SumOfSquares{.grad = grad.data(),
                                  .n = static_cast<int64_t>(n),
                                  .scratch = scratch.data(),
                                  .out = out.data()});
      seen.push_back(out.Host()[0]);
    });
    EXPECT_NEAR(seen[0], expected, 1e-12 * expected);  // doubles throughout
    EXPECT_EQ(seen[0], seen[1]);
    if (n == 0) continue;
    for (const float bad : {NAN, INFINITY}) {
      g[n / 2] = bad;
      Array<float> broken(device(), g);
      Array<double> scratch(device(), kNormScratch), out(device(), 1);
      Call(launch(), SumOfSquares{.grad = broken.data(),
                                  .n = static_cast<int64_t>(n),
                                  .scratch = scratch.data(),
                                  .out = out.data()});
      EXPECT_FALSE(std::isfinite(out.Host()[0]));
    }
  }
}

// Pieces long enough for several turns of a warp, and memory that does not begin on 16 bytes: the
// same sum to the bit.
TEST_P(Adamw, SumOfSquaresOfLongPieces) {
  constexpr size_t n = 4096 * 1200 + 77;
  const auto g = Normal(n, 3, DType::kBFloat16);
  double expected = 0;
  for (const float f : g) expected += static_cast<double>(f) * static_cast<double>(f);
  std::vector<double> seen;
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    for (const size_t skip : {0, 1}) {
      std::vector<float> shifted(skip, 3.0f);
      shifted.insert(shifted.end(), g.begin(), g.end());
      Tensor grad({device(), type}, shifted);
      Array<double> scratch(device(), kNormScratch), out(device(), 1);
      Call(launch(),
           SumOfSquares{.grad = static_cast<std::byte*>(grad.data()) + skip * ElementSize(type),
                        .grad_dtype = type,
                        .n = static_cast<int64_t>(n),
                        .scratch = scratch.data(),
                        .out = out.data()});
      seen.push_back(out.Host()[0]);
    }
  }
  EXPECT_NEAR(seen[0], expected, 1e-12 * expected);
  for (const double each : seen) EXPECT_EQ(each, seen[0]);
}

// Gradients in bfloat16 are what they are as floats.
TEST_P(Adamw, GradientsOfTwoBytes) {
  for (const size_t n : {1, 64, 1000, 20001}) {
    const auto g = Normal(n, 5, DType::kBFloat16), start = Normal(n, 6);
    Array<float> wide(device(), g);
    Tensor narrow({device(), DType::kBFloat16}, g);
    std::vector<std::vector<float>> masters;
    std::vector<double> squares;
    for (const bool half : {false, true}) {
      Array<float> master(device(), start), m(device(), std::vector<float>(n, 0.0f)),
          v(device(), std::vector<float>(n, 0.0f));
      Tensor param(GetParam(), n);
      const DType type = half ? DType::kBFloat16 : DType::kFloat32;
      const void* grad = half ? narrow.data() : wide.data();
      Call(launch(), AdamwUpdate{.master = master.data(),
                                 .m = m.data(),
                                 .v = v.data(),
                                 .grad = grad,
                                 .grad_dtype = type,
                                 .n = static_cast<int64_t>(n),
                                 .options = {.learning_rate = 1e-2f, .weight_decay = 0.1f},
                                 .param = param.data()});
      masters.push_back(master.Host());
      Array<double> scratch(device(), kNormScratch), out(device(), 1);
      Call(launch(), SumOfSquares{.grad = grad,
                                  .grad_dtype = type,
                                  .n = static_cast<int64_t>(n),
                                  .scratch = scratch.data(),
                                  .out = out.data()});
      squares.push_back(out.Host()[0]);
    }
    ExpectSameBits(masters[1], masters[0], "masters");
    EXPECT_EQ(squares[1], squares[0]);
  }
}

}  // namespace
}  // namespace plumb::kernels
