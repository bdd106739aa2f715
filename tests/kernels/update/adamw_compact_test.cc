#include "kernels/update/adamw_compact.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

constexpr float kStepOfM = 1.0f / 1984, kStepOfV = 1.0f / 507904;  // 1 / (31 * 2^6), / (31 * 2^14)

// The moments of one tensor in 8 bits.
struct Moments8 {
  std::vector<uint8_t> m, v;
  std::vector<float> m_scales, v_scales;
  explicit Moments8(size_t n) : m(n), v(n), m_scales(Blocks(n)), v_scales(Blocks(n)) {}
  static size_t Blocks(size_t n) {
    return static_cast<size_t>(MomentBlocks(static_cast<int64_t>(n)));
  }
  MomentState OfM() { return {.codes = m.data(), .scales = m_scales.data()}; }
  MomentState OfV() { return {.codes = v.data(), .scales = v_scales.data()}; }
  std::vector<float> M() { return Decoded(OfM(), true, m.size()); }
  std::vector<float> V() { return Decoded(OfV(), false, v.size()); }
  static std::vector<float> Decoded(MomentState from, bool negative, size_t n) {
    std::vector<float> out(n);
    Call({},
         DecodeMoment{
             .from = from, .negative = negative, .n = static_cast<int64_t>(n), .out = out.data()});
    return out;
  }
};

// beta 0: the moments are the gradient and its square, as they are stored.
AdamwOptions Plain() { return {.learning_rate = 0, .beta1 = 0, .beta2 = 0}; }

// Gradients over many orders of magnitude.
std::vector<float> Spread(size_t n, uint64_t seed) {
  RandomStream random(seed, 3);
  std::vector<float> out(n);
  for (float& x : out) x = random.NextNormal() * std::exp2(-12.0f * random.NextUniform());
  out[n / 3] = 0;
  return out;
}

float LargestOfBlock(const std::vector<float>& x, size_t i, bool square) {
  const size_t begin = i / kMomentBlock * kMomentBlock,
               end = std::min(x.size(), begin + kMomentBlock);
  float largest = 0;
  for (size_t k = begin; k < end; ++k)
    largest = std::max(largest, square ? x[k] * x[k] : std::abs(x[k]));
  return largest;
}

void Store(const std::vector<float>& grad, uint32_t step, Moments8& to) {
  std::vector<float> master(grad.size());
  Call({}, AdamwCompact{.master = master.data(),
                        .m = to.OfM(),
                        .v = to.OfV(),
                        .grad = grad.data(),
                        .n = static_cast<int64_t>(grad.size()),
                        .options = Plain(),
                        .seed = 9,
                        .draw_step = step});
}

TEST(AdamwCompactTest, AStoredMomentIsWithinItsStep) {
  for (const size_t n : {1, 255, 257, 5000, 40001}) {
    const std::vector<float> grad = Spread(n, n);
    Moments8 kept(n);
    Store(grad, 1, kept);
    const auto m = kept.M(), v = kept.V();
    for (size_t i = 0; i < n; ++i) {
      const float square = grad[i] * grad[i], of_m = LargestOfBlock(grad, i, false),
                  of_v = LargestOfBlock(grad, i, true);
      ASSERT_LE(std::abs(m[i] - grad[i]),
                std::max(std::abs(grad[i]) / 16, of_m * kStepOfM) * 1.00001f)
          << i;
      ASSERT_LE(std::abs(v[i] - square), std::max(square / 16, of_v * kStepOfV) * 1.00001f) << i;
      if (grad[i] == 0) {
        ASSERT_EQ(m[i], 0.0f);
      }
      // 0 only for 0: a step divides by it.
      ASSERT_EQ(v[i] == 0, square == 0) << i;
      if (std::abs(grad[i]) == of_m) {
        ASSERT_EQ(m[i], grad[i]) << "the largest has no error";
      }
    }
  }
}

// In the mean over steps the stored number is the number: what is smaller than a step still counts.
TEST(AdamwCompactTest, RoundingIsRightInTheMean) {
  constexpr size_t kElements = 512;
  constexpr int kTimes = 4000;
  const std::vector<float> grad = Spread(kElements, 4);
  std::vector<double> sum_m(kElements), sum_v(kElements);
  for (int t = 0; t < kTimes; ++t) {
    Moments8 kept(kElements);
    Store(grad, static_cast<uint32_t>(t), kept);
    const auto m = kept.M(), v = kept.V();
    for (size_t i = 0; i < kElements; ++i) {
      sum_m[i] += static_cast<double>(m[i]);
      sum_v[i] += static_cast<double>(v[i]);
    }
  }
  for (size_t i = 0; i < kElements; ++i) {
    const auto g = static_cast<double>(grad[i]),
               of_m = static_cast<double>(LargestOfBlock(grad, i, false)),
               of_v = static_cast<double>(LargestOfBlock(grad, i, true));
    // Five standard deviations of a mean of kTimes, each draw within half a step.
    const double step_m = std::max(std::abs(g) / 16, of_m * static_cast<double>(kStepOfM)),
                 step_v = std::max(g * g / 16, of_v * static_cast<double>(kStepOfV)),
                 deviations = 5 * 0.5 / std::sqrt(static_cast<double>(kTimes));
    EXPECT_NEAR(sum_m[i] / kTimes, g, deviations * step_m + 1e-6 * std::abs(g)) << i;
    if (g * g < of_v * static_cast<double>(kStepOfV)) continue;  // its smallest value stands for it
    EXPECT_NEAR(sum_v[i] / kTimes, g * g, deviations * step_v + 1e-6 * g * g) << i;
  }
}

// A moment that decays by less than half a step a time still decays.
TEST(AdamwCompactTest, ASlowMomentFollows) {
  constexpr size_t kElements = 256;
  Moments8 kept(kElements);
  std::vector<float> grad(kElements, 1.0f), master(kElements);
  AdamwOptions o{.learning_rate = 0, .beta1 = 0.9f, .beta2 = 0.999f};
  std::vector<double> exact(kElements);
  for (uint32_t t = 0; t < 2000; ++t) {
    // The first element keeps its size and with it the block its scale.
    for (size_t i = 1; i < kElements; ++i) grad[i] = t < 500 ? 1.0f : 0.0f;
    Call({}, AdamwCompact{.master = master.data(),
                          .m = kept.OfM(),
                          .v = kept.OfV(),
                          .grad = grad.data(),
                          .n = kElements,
                          .options = o,
                          .seed = 3,
                          .draw_step = t});
    for (size_t i = 0; i < kElements; ++i)
      exact[i] = 0.999 * exact[i] + 0.001 * static_cast<double>(grad[i] * grad[i]);
  }
  double mean = 0, expected = 0;
  const auto v = kept.V();
  for (size_t i = 1; i < kElements; ++i) {
    mean += static_cast<double>(v[i]) / (kElements - 1);
    expected += exact[i] / (kElements - 1);
  }
  EXPECT_NEAR(mean, expected, 0.1 * expected)
      << "rounding to the nearest stays 4.5 times too large";
}

TEST(AdamwCompactTest, WeightsWithoutMastersAreRightInTheMean) {
  constexpr size_t kElements = 2000;
  constexpr int kSteps = 400;
  // A step is 1/64 of the distance of two weights near 1: to the nearest, none would be made.
  std::vector<BFloat16> param(kElements, ToBFloat16(1.0f));
  std::vector<float> m(kElements), v(kElements), grad(kElements, -1.0f);
  AdamwOptions o{.learning_rate = 1.0f / (128 * 64), .beta1 = 0, .beta2 = 0};
  for (uint32_t t = 0; t < kSteps; ++t) {
    Call({.dtype = DType::kBFloat16}, AdamwCompact{.param = param.data(),
                                                   .m = {.exact = m.data()},
                                                   .v = {.exact = v.data()},
                                                   .grad = grad.data(),
                                                   .n = kElements,
                                                   .options = o,
                                                   .seed = 5,
                                                   .draw_step = t});
  }
  double mean = 0;
  for (const BFloat16 w : param) mean += static_cast<double>(ToFloat(w)) / kElements;
  const double wanted = 1 + kSteps * static_cast<double>(o.learning_rate);
  // A walk of kSteps roundings, each within half of 1/128.
  EXPECT_NEAR(mean, wanted, 5 * std::sqrt(kSteps / static_cast<double>(kElements)) / 256);
  EXPECT_GT(wanted, 1.04);
}

TEST(AdamwCompactTest, WhatIsNotFiniteOrNearTheEndStaysSo) {
  std::vector<BFloat16> param = {ToBFloat16(3.3e38f), ToBFloat16(-3.3e38f), ToBFloat16(0.0f)};
  std::vector<float> m(3), v(3), grad(3);
  for (uint32_t t = 0; t < 50; ++t) {
    Call({.dtype = DType::kBFloat16}, AdamwCompact{.param = param.data(),
                                                   .m = {.exact = m.data()},
                                                   .v = {.exact = v.data()},
                                                   .grad = grad.data(),
                                                   .n = 3,
                                                   .options = {},
                                                   .draw_step = t});
    for (const BFloat16 w : param) ASSERT_TRUE(std::isfinite(ToFloat(w)));
  }
  EXPECT_EQ(ToFloat(param[2]), 0.0f);
}

// With moments and a master that are exact it is AdamwUpdate, and it is the same on any threads.
TEST(AdamwCompactTest, ExactStateIsTheOtherKernels) {
  constexpr size_t kElements = 70'001;
  const std::vector<float> start = Spread(kElements, 1), grad = Spread(kElements, 2);
  std::vector<float> a = start, am(kElements), av(kElements), b = start, bm(kElements),
                     bv(kElements);
  std::vector<BFloat16> ap(kElements), bp(kElements);
  const AdamwOptions o{.learning_rate = 1e-2f, .weight_decay = 0.1f, .grad_scale = 0.5f};
  const Launch launch{.dtype = DType::kBFloat16};
  Call(launch, AdamwUpdate{.master = a.data(),
                           .m = am.data(),
                           .v = av.data(),
                           .grad = grad.data(),
                           .n = kElements,
                           .options = o,
                           .param = ap.data()});
  Call(launch, AdamwCompact{.param = bp.data(),
                            .master = b.data(),
                            .m = {.exact = bm.data()},
                            .v = {.exact = bv.data()},
                            .grad = grad.data(),
                            .n = kElements,
                            .options = o});
  for (size_t i = 0; i < kElements; ++i) {
    ASSERT_NEAR(b[i], a[i], 1e-6f * std::abs(a[i]) + 1e-9f) << i;
    ASSERT_NEAR(bm[i], am[i], 1e-6f * std::abs(am[i])) << i;
    ASSERT_EQ(ToFloat(bp[i]), ToFloat(ToBFloat16(b[i]))) << i;
  }
}

TEST(AdamwCompactTest, ThreadsChangeNothing) {
  constexpr size_t kElements = 70'001;
  const std::vector<float> grad = Spread(kElements, 2);
  const auto run = [&](int threads) {
    omp_set_num_threads(threads);
    Moments8 kept(kElements);
    std::vector<BFloat16> param(kElements, ToBFloat16(0.3f));
    for (uint32_t t = 0; t < 3; ++t) {
      Call({.dtype = DType::kBFloat16}, AdamwCompact{.param = param.data(),
                                                     .m = kept.OfM(),
                                                     .v = kept.OfV(),
                                                     .grad = grad.data(),
                                                     .n = kElements,
                                                     .options = {.learning_rate = 1e-3f},
                                                     .seed = 1,
                                                     .draw_step = t});
    }
    std::vector<uint8_t> bytes(4 * kElements);
    std::memcpy(bytes.data(), param.data(), 2 * kElements);
    std::memcpy(bytes.data() + 2 * kElements, kept.m.data(), kElements);
    std::memcpy(bytes.data() + 3 * kElements, kept.v.data(), kElements);
    return bytes;
  };
  const int before = omp_get_max_threads();
  const auto one = run(1);
  EXPECT_EQ(one, run(2));
  omp_set_num_threads(before);
}

// Every form of state on both devices against the CPU: three steps, gradients of both types, ends
// of tensors, memory that does not begin on 16 bytes.
struct Form {
  bool m8, v8, master;
  DType grad;
};

struct Kept {
  std::vector<float> master, m, v, m_scales, v_scales;
  std::vector<uint8_t> m8, v8;
  std::vector<float> param;
};

// An array from element `skip` on.
template <class V>
V* From(Array<V>& array, size_t skip) {
  return array.data() + skip;
}

Kept ThreeSteps(Target on, const Form& form, size_t n, size_t skip) {
  const Launch launch{.stream = TestStream(on.device), .dtype = on.dtype};
  const auto blocks = static_cast<size_t>(MomentBlocks(static_cast<int64_t>(n)));
  const auto zeros = [](size_t count) { return std::vector<float>(count, 0.0f); };
  Array<float> master(on.device, Normal(n + skip, 1)), m(on.device, zeros(n + skip)),
      v(on.device, zeros(n + skip)), m_scales(on.device, zeros(blocks)),
      v_scales(on.device, zeros(blocks));
  Array<uint8_t> m8(on.device, std::vector<uint8_t>(n + skip)),
      v8(on.device, std::vector<uint8_t>(n + skip));
  Tensor param(on, Normal(n + skip, 1, on.dtype));
  const bool half = on.dtype == DType::kBFloat16;
  AdamwOptions o{.learning_rate = 1e-2f, .beta2 = 0.99f, .weight_decay = 0.1f, .grad_scale = 0.5f};
  for (uint32_t step = 1; step <= 3; ++step) {
    Tensor grad({on.device, form.grad}, Spread(n + skip, step));
    o.step = step;
    Call(launch,
         AdamwCompact{.param = half ? static_cast<std::byte*>(param.data()) + 2 * skip : nullptr,
                      .master = form.master ? From(master, skip) : nullptr,
                      .m = form.m8 ? MomentState{.codes = From(m8, skip), .scales = m_scales.data()}
                                   : MomentState{.exact = From(m, skip)},
                      .v = form.v8 ? MomentState{.codes = From(v8, skip), .scales = v_scales.data()}
                                   : MomentState{.exact = From(v, skip)},
                      .grad = static_cast<std::byte*>(grad.data()) + ElementSize(form.grad) * skip,
                      .grad_dtype = form.grad,
                      .decay = step != 2,
                      .n = static_cast<int64_t>(n),
                      .options = o,
                      .seed = 77,
                      .set = 1,
                      .draw_step = step,
                      .first = 64});
  }
  return {.master = master.Host(),
          .m = m.Host(),
          .v = v.Host(),
          .m_scales = m_scales.Host(),
          .v_scales = v_scales.Host(),
          .m8 = m8.Host(),
          .v8 = v8.Host(),
          .param = param.Host()};
}

// How many stored numbers differ; none by more than one step of its code.
size_t Differences(const std::vector<uint8_t>& seen, const std::vector<uint8_t>& wanted,
                   const std::vector<float>& scales, size_t skip, bool negative) {
  const auto decoded = [&](const std::vector<uint8_t>& codes) {
    std::vector<float> out(codes.size() - skip);
    Call({}, DecodeMoment{.from = {.codes = const_cast<uint8_t*>(codes.data()) + skip,
                                   .scales = const_cast<float*>(scales.data())},
                          .negative = negative,
                          .n = static_cast<int64_t>(out.size()),
                          .out = out.data()});
    return out;
  };
  const auto a = decoded(seen), b = decoded(wanted);
  size_t differ = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    differ += seen[i + skip] != wanted[i + skip];
    const float even = scales[i / kMomentBlock] * (negative ? kStepOfM : kStepOfV);
    EXPECT_LE(std::abs(a[i] - b[i]),
              1.001f * std::max(even, std::max(std::abs(a[i]), std::abs(b[i])) / 16))
        << i;
  }
  return differ;
}

PLUMB_KERNEL_SUITE(AdamwCompactForms);

TEST_P(AdamwCompactForms, AreThoseOfTheCpu) {
  const bool half = dtype() == DType::kBFloat16;
  const std::vector<std::pair<size_t, size_t>> sizes = {{1, 0},   {255, 0},   {256, 0},  {257, 0},
                                                        {500, 2}, {20001, 0}, {20001, 1}};
  for (const auto& [n, skip] : sizes) {
    for (int of = 0; of < 16; ++of) {
      const Form form{.m8 = (of & 1) != 0,
                      .v8 = (of & 2) != 0,
                      .master = (of & 4) == 0,
                      .grad = (of & 8) != 0 ? DType::kBFloat16 : DType::kFloat32};
      if (!form.master && !half) continue;
      SCOPED_TRACE("n " + std::to_string(n) + " from " + std::to_string(skip) + " form " +
                   std::to_string(of));
      const Kept seen = ThreeSteps(GetParam(), form, n, skip),
                 wanted = ThreeSteps({Device::kCpu, dtype()}, form, n, skip);
      // A few units in the last place of terms that are 3 at most; a stored moment that fell on the
      // other side of its draw moves the next step by as much as its own rounding.
      const double few = 8 * kEps;
      size_t moved = 0;
      if (form.m8) {
        ExpectClose(seen.m_scales, ToDouble(wanted.m_scales), 64 * kEps, 0, "scales of m");
        moved += Differences(seen.m8, wanted.m8, wanted.m_scales, skip, true);
      } else {
        ExpectClose(seen.m, ToDouble(wanted.m), few, 2 * few, "m");
      }
      if (form.v8) {
        ExpectClose(seen.v_scales, ToDouble(wanted.v_scales), 64 * kEps, 0, "scales of v");
        moved += Differences(seen.v8, wanted.v8, wanted.v_scales, skip, false);
      } else {
        ExpectClose(seen.v, ToDouble(wanted.v), few, few, "v");
      }
      const std::vector<float>& weights = form.master ? seen.master : seen.param;
      const std::vector<float>& reference = form.master ? wanted.master : wanted.param;
      for (size_t i = 0; i < weights.size(); ++i) {
        const float off = std::abs(weights[i] - reference[i]);
        moved += off > 1e-6f * (1 + std::abs(reference[i]));
        // a step is 0.03 at most here, and a bfloat16 weight of 4 has neighbours 1/64 apart
        ASSERT_LE(off, form.master ? 0.03f : 0.05f) << i;
      }
      // A draw decides between two codes where they differ by a few 2^-24 of it: one in 10,000.
      EXPECT_LE(moved, 1 + n / 2000);
      if (skip == 0) continue;
      EXPECT_EQ(seen.m8[0], 0) << "what lies before is left alone";
      EXPECT_EQ(seen.param[0], wanted.param[0]);
    }
  }
}

// A set in one launch, with gaps between its tensors and tensors of less than a block, to the bits
// of a launch each; what lies between is left alone.
TEST_P(AdamwCompactForms, ASetIsItsTensors) {
  const std::vector<size_t> sizes = {1, 300, 64, 256, 100'001, 7, 2048};
  std::vector<CompactTensor> tensors;
  int64_t end = 0, blocks = 0;
  for (const size_t n : sizes) {
    tensors.push_back({.at = (end + 63) / 64 * 64 + (n == 7 ? 2 : 0),
                       .first_block = blocks,
                       .n = static_cast<int64_t>(n),
                       .decay = n % 2 == 0 ? 1 : 0});
    end = tensors.back().at + tensors.back().n;
    blocks += MomentBlocks(tensors.back().n);
  }
  const auto n = static_cast<size_t>(end);
  const bool half = dtype() == DType::kBFloat16;
  for (const bool master : {true, false}) {
    if (!master && !half) continue;
    std::vector<std::vector<float>> results[2];
    for (const bool together : {false, true}) {
      Array<float> masters(device(), Normal(n, 1)),
          m_scales(device(), std::vector<float>(static_cast<size_t>(blocks))),
          v_scales(device(), std::vector<float>(static_cast<size_t>(blocks)));
      Array<uint8_t> m8(device(), std::vector<uint8_t>(n)), v8(device(), std::vector<uint8_t>(n));
      Tensor param(GetParam(), Normal(n, 1, dtype()));
      Array<CompactTensor> table(device(), tensors);
      AdamwCompact all{.param = half ? param.data() : nullptr,
                       .master = master ? masters.data() : nullptr,
                       .m = {.codes = m8.data(), .scales = m_scales.data()},
                       .v = {.codes = v8.data(), .scales = v_scales.data()},
                       .options = {.learning_rate = 1e-2f, .weight_decay = 0.1f},
                       .seed = 5,
                       .set = 1};
      for (uint32_t step = 1; step <= 2; ++step) {
        Tensor grad(GetParam(), Spread(n, step));
        all.grad = grad.data();
        all.grad_dtype = dtype();
        all.options.step = step;
        all.draw_step = step;
        if (together) {
          Call(launch(), AdamwCompactSet{.all = all,
                                         .tensors = table.data(),
                                         .count = std::ssize(tensors),
                                         .blocks = blocks});
          continue;
        }
        for (const CompactTensor& of : tensors) {
          const auto size = static_cast<int64_t>(ElementSize(dtype()));
          AdamwCompact one = all;
          if (one.param) one.param = static_cast<std::byte*>(one.param) + of.at * size;
          if (one.master) one.master += of.at;
          for (MomentState* each : {&one.m, &one.v}) {
            each->codes += of.at;
            each->scales += of.first_block;
          }
          one.grad = static_cast<const std::byte*>(one.grad) + of.at * size;
          one.decay = of.decay != 0;
          one.n = of.n;
          one.first = of.at;
          Call(launch(), one);
        }
      }
      const auto floats = [](const std::vector<uint8_t>& codes) {
        return std::vector<float>(codes.begin(), codes.end());
      };
      results[together ? 1 : 0] = {masters.Host(),  param.Host(),      m_scales.Host(),
                                   v_scales.Host(), floats(m8.Host()), floats(v8.Host())};
    }
    const char* const names[] = {"masters", "weights", "scales of m", "scales of v", "m", "v"};
    for (size_t i = 0; i < std::size(names); ++i)
      ExpectSameBits(results[1][i], results[0][i], names[i]);
  }
}

}  // namespace
}  // namespace plumb::kernels
