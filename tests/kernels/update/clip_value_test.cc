#include "kernels/update/clip_value.h"

#include <limits>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(ClipValueTest);

TEST_P(ClipValueTest, ClipsEachByItselfAndCounts) {
  for (const size_t n : {1, 64, 5000, 300'001}) {
    std::vector<float> values = Normal(n, 3), wanted = values;
    double clipped = 0;
    for (float& v : wanted) {
      clipped += std::fabs(v) > 0.5f;
      v = std::clamp(v, -0.5f, 0.5f);
    }
    Array<float> grad(device(), values);
    Array<double> scratch(device(), std::vector<double>(kNormScratch)),
        out(device(), std::vector<double>(1));
    Call(launch(), ClipValue{.grad = grad.data(),
                             .n = static_cast<int64_t>(n),
                             .bound = 0.5f,
                             .scratch = scratch.data(),
                             .out = out.data()});
    EXPECT_EQ(grad.Host(), wanted);
    EXPECT_EQ(out.Host()[0], clipped);
  }
}

TEST_P(ClipValueTest, WhatIsNotFiniteStays) {
  const float inf = std::numeric_limits<float>::infinity();
  Array<float> grad(device(), std::vector<float>{inf, -inf, std::nanf(""), 3.0f});
  Array<double> scratch(device(), std::vector<double>(kNormScratch)),
      out(device(), std::vector<double>(1));
  Call(launch(),
       ClipValue{
           .grad = grad.data(), .n = 4, .bound = 1, .scratch = scratch.data(), .out = out.data()});
  const std::vector<float> host = grad.Host();
  EXPECT_EQ(host[0], inf);
  EXPECT_EQ(host[1], -inf);
  EXPECT_TRUE(std::isnan(host[2]));
  EXPECT_EQ(host[3], 1.0f);
  EXPECT_EQ(out.Host()[0], 1.0);
}

TEST_P(ClipValueTest, GradientsOfTwoBytes) {
  const float bound = 0.3f, most = ToFloat(ToBFloat16(bound));
  for (const size_t n : {1, 5000, 300'001}) {
    std::vector<float> values = Normal(n, 3, DType::kBFloat16), wanted = values;
    double clipped = 0;
    for (float& v : wanted) {
      clipped += std::fabs(v) > most;
      v = std::clamp(v, -most, most);
    }
    Tensor grad({device(), DType::kBFloat16}, values);
    Array<double> scratch(device(), std::vector<double>(kNormScratch)),
        out(device(), std::vector<double>(1));
    Call(launch(), ClipValue{.grad = grad.data(),
                             .grad_dtype = DType::kBFloat16,
                             .n = static_cast<int64_t>(n),
                             .bound = bound,
                             .scratch = scratch.data(),
                             .out = out.data()});
    EXPECT_EQ(grad.Host(), wanted);
    EXPECT_EQ(out.Host()[0], clipped);
  }
}

}  // namespace
}  // namespace plumb::kernels
