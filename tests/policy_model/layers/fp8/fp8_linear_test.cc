// Products of layers in FP8 (policy_model/layers/fp8/fp8_linear.h): their errors are those of the
// roundings of operands, gradients of weights are not touched, a GPU computes what the CPU does,
// and what cannot be computed so is refused.
#include "policy_model/layers/fp8/fp8_linear.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "kernels/device/compute_capability.h"
#include "policy_model/layers/linear.h"
#include "policy_model/pass_bytes.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape(int64_t hidden = 64, int64_t ffn = 48) {
  return {.family = "llama",
          .layers = 2,
          .hidden = hidden,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn = ffn,
          .vocab = 40,
          .max_positions = 64,
          .tied = true,
          .eos_tokens = {2}};
}

std::vector<float> Normal(int64_t n, uint64_t seed, DType dtype) {
  RandomStream random(seed, 4);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) {
    x = static_cast<float>(random.NextNormal());
    if (dtype == DType::kBFloat16) x = ToFloat(ToBFloat16(x));
  }
  return out;
}

FlatBuffer Put(const Stream& stream, DType dtype, const std::vector<float>& values) {
  FlatBuffer out(stream, dtype, static_cast<int64_t>(values.size()));
  std::vector<std::byte> bytes(out.bytes());
  ConvertFloat(values, dtype, bytes.data());
  out.CopyFromHost(bytes);
  return out;
}

std::vector<float> Get(const FlatBuffer& from) {
  std::vector<std::byte> bytes(from.bytes());
  from.CopyToHost(bytes);
  std::vector<float> out(static_cast<size_t>(from.elements()));
  ConvertToFloat(bytes.data(), from.dtype(), out);
  return out;
}

// What a linear part gives: y = 1 + x W^T, dx = 1 + dy W, both added to what is there, and dW.
struct Seen {
  std::vector<float> y, dx, dw;
};

struct Case {
  int64_t rows, columns, n;
};
constexpr Case kSmall{.rows = 2 * 48, .columns = 64, .n = 37};

struct Operands {
  std::vector<float> x, w, dy;
  Operands(const Case& of, DType dtype)
      : x(Normal(of.n * of.columns, 1, dtype)),
        w(Normal(of.rows * of.columns, 2, dtype)),
        dy(Normal(of.n * of.rows, 3, dtype)) {
    for (size_t i = 0; i < x.size(); ++i)  // outliers, as activations have them
      if (i % 97 == 0) x[i] *= 16;
  }
};

Seen Compute(const Stream& stream, DType dtype, const Operands& of, bool fp8) {
  Weights weights(Shape(), stream, dtype);
  const int64_t at = weights.table().layer(0).gate_up;
  const FlatBuffer w = Put(stream, dtype, of.w), x = Put(stream, dtype, of.x),
                   dy = Put(stream, dtype, of.dy);
  std::vector<std::byte> bytes(w.bytes());
  w.CopyToHost(bytes);
  weights.flat().CopyFromHost(bytes, at);
  FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
  Arena saved(stream), scratch(stream);
  PackedPass pass{{{.stream = stream, .dtype = dtype}, weights, {}},
                  {{.tokens = kSmall.n}},
                  nullptr,
                  true,
                  saved,
                  scratch};
  pass.fp8 = fp8;
  const std::vector<TrainedRun> all = {{.begin = 0, .end = weights.flat().elements(), .at = 0}};
  pass.grad.base = &grad;
  pass.grad.base_runs = all;
  LinearLayer layer(at, kSmall.rows, kSmall.columns);
  scratch.Begin();
  layer.Plan(pass, kSmall.n, scratch);
  scratch.Commit();
  FlatBuffer y = Put(stream, dtype, std::vector<float>(of.dy.size(), 1.0f)),
             dx = Put(stream, dtype, std::vector<float>(of.x.size(), 1.0f));
  layer.Forward(pass, x.data(), /*accumulate=*/true, y.data());
  layer.Backward(pass, dy.data(), x.data(), /*accumulate=*/true, dx.data());
  const std::vector<float> all_grad = Get(grad);
  const auto first = all_grad.begin() + at;
  return {Get(y), Get(dx), {first, first + kSmall.rows * kSmall.columns}};
}

float Largest(const std::vector<float>& of, int64_t first, int64_t n, int64_t step) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i)
    largest = std::max(largest, std::abs(of[static_cast<size_t>(first + i * step)]));
  return largest;
}

// One product a[i, t] b[t, j] + 1 against its roundings. Of operands relative to themselves: u of a
// and v of b; where they are subnormal half a step of their row's scale.
struct Bound {
  double sum = 1, size = 0, error = 0;
  void Term(double a, double b, double u, double v, double step_a, double step_b) {
    sum += a * b;
    size += std::abs(a * b);
    const double of_a = std::max(u * std::abs(a), step_a), of_b = std::max(v * std::abs(b), step_b);
    error += of_a * std::abs(b) + of_b * std::abs(a) + of_a * of_b;
  }
};
constexpr double kE4M3 = 1.0 / 16, kE5M2 = 1.0 / 8;  // half a step of a normal number
double StepE4M3(float largest) { return static_cast<double>(largest) / 448 / 1024; }
double StepE5M2(float largest) { return static_cast<double>(largest) / 57344 / 131072; }

TEST(Fp8LinearTest, ErrorsAreThoseOfRoundedOperands) {
  const auto [rows, columns, n] = kSmall;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Operands of(kSmall, dtype);
    const Seen fp8 = Compute(Device::kCpu, dtype, of, true),
               exact = Compute(Device::kCpu, dtype, of, false);
    const double output = dtype == DType::kFloat32 ? 1e-6 : 1.0 / 256;
    const auto at = [](const std::vector<float>& from, int64_t i) {
      return static_cast<double>(from[static_cast<size_t>(i)]);
    };
    double worst = 0, off = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double step = StepE4M3(Largest(of.x, i * columns, columns, 1));
      for (int64_t j = 0; j < rows; ++j) {
        const double step_w = StepE4M3(Largest(of.w, j * columns, columns, 1));
        Bound bound;
        for (int64_t t = 0; t < columns; ++t)
          bound.Term(at(of.x, i * columns + t), at(of.w, j * columns + t), kE4M3, kE4M3, step,
                     step_w);
        const double found = at(fp8.y, i * rows + j);
        ASSERT_LE(std::abs(found - bound.sum),
                  bound.error + output * std::abs(found) + 1e-6 * bound.size);
        off += std::pow(found - bound.sum, 2);
        norm += bound.sum * bound.sum;
      }
    }
    std::printf("forward: relative error %.4f\n", std::sqrt(off / norm));
    EXPECT_LT(std::sqrt(off / norm), 0.05);
    EXPECT_GT(std::sqrt(off / norm), 0.01) << "these are 8 bits";
    off = norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double step = StepE5M2(Largest(of.dy, i * rows, rows, 1));
      for (int64_t j = 0; j < columns; ++j) {
        const double step_w = StepE4M3(Largest(of.w, j, rows, columns));
        Bound bound;
        for (int64_t t = 0; t < rows; ++t)
          bound.Term(at(of.dy, i * rows + t), at(of.w, t * columns + j), kE5M2, kE4M3, step,
                     step_w);
        const double found = at(fp8.dx, i * columns + j);
        worst = std::max(worst, std::abs(found - bound.sum) / bound.error);
        ASSERT_LE(std::abs(found - bound.sum),
                  bound.error + output * std::abs(found) + 1e-6 * bound.size);
        off += std::pow(found - bound.sum, 2);
        norm += bound.sum * bound.sum;
      }
    }
    std::printf("gradient of the input: relative error %.4f\n", std::sqrt(off / norm));
    EXPECT_LT(std::sqrt(off / norm), 0.10);
    EXPECT_GT(std::sqrt(off / norm), 0.02);
    EXPECT_EQ(fp8.dw, exact.dw) << "in the model's type";
  }
}

// Of a GPU, whose sums have fewer bits within a tile, and whose added product is rounded before.
TEST(Fp8LinearCuda, ComputesWhatTheCpuDoes) {
  if (!kernels::CudaAvailable() || kernels::ComputeCapability(Device::Cuda(0)) < 89)
    GTEST_SKIP() << "NO GPU of capability 8.9: products in FP8 were NOT compared here";
  const auto [rows, columns, n] = kSmall;
  const OwnedStream stream(Device::Cuda(0));
  const Operands of(kSmall, DType::kBFloat16);
  const Seen gpu = Compute(stream, DType::kBFloat16, of, true),
             cpu = Compute(Device::kCpu, DType::kBFloat16, of, true),
             exact = Compute(stream, DType::kBFloat16, of, false);
  const auto near = [](const std::vector<float>& a, const std::vector<float>& b,
                       const std::vector<float>& left, const std::vector<float>& right, int64_t m,
                       int64_t wide, int64_t k, bool turned) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < wide; ++j) {
        double size = 1;
        for (int64_t t = 0; t < k; ++t) {
          const auto l = static_cast<size_t>(i * k + t),
                     r = static_cast<size_t>(turned ? t * wide + j : j * k + t);
          size += static_cast<double>(std::abs(left[l] * right[r]));
        }
        const auto at = static_cast<size_t>(i * wide + j);
        ASSERT_NEAR(static_cast<double>(a[at]), static_cast<double>(b[at]),
                    size / 2048 + static_cast<double>(std::abs(b[at])) / 64)
            << i << " " << j;
      }
    }
  };
  near(gpu.y, cpu.y, of.x, of.w, n, rows, columns, false);
  near(gpu.dx, cpu.dx, of.dy, of.w, n, columns, rows, true);
  EXPECT_EQ(gpu.dw, exact.dw);
  EXPECT_NE(gpu.y, exact.y);
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  for (int s = 0; s < 5; ++s) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < 9; ++i) tokens.push_back(3 + (7 * s + 5 * i) % 37);
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1), 0);
  }
  return batch;
}

struct Passed {
  std::vector<float> logprob, gradient;
  int64_t bytes = 0;
};

Passed Pass(const Weights& weights, bool fp8, bool recompute) {
  Transformer model(weights.shape(), weights.stream(), weights.dtype());
  model.UseProducts(fp8 ? configs::Products::kFp8 : configs::Products::kDType);
  model.RecomputeLayers(recompute);
  const PackedBatch batch = Batch();
  Passed out;
  out.logprob.resize(batch.rows.size());
  std::vector<float> entropy(batch.rows.size()), g(batch.rows.size(), 1.0f);
  FlatBuffer grad(weights.stream(), DType::kFloat32, weights.flat().elements());
  Gradients into;
  into.base = &grad;
  model.Forward(weights, batch, {}, true, out.logprob, entropy);
  model.Backward(weights, batch, g, {}, into);
  out.gradient = Get(grad);
  out.bytes = model.arena_bytes();
  return out;
}

TEST(Fp8LinearTest, AModelsGradientIsCloseToThatOfItsType) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Weights weights(Shape(), Device::kCpu, dtype);
    weights.Initialise(3, 0.1);
    const Passed exact = Pass(weights, false, false), fp8 = Pass(weights, true, false);
    double off = 0, norm = 0, product = 0, size = 0;
    for (size_t i = 0; i < exact.gradient.size(); ++i) {
      const auto a = static_cast<double>(exact.gradient[i]),
                 b = static_cast<double>(fp8.gradient[i]);
      off += (a - b) * (a - b);
      norm += a * a;
      size += b * b;
      product += a * b;
    }
    double moved = 0;
    for (size_t i = 0; i < exact.logprob.size(); ++i)
      moved = std::max(moved, static_cast<double>(std::abs(exact.logprob[i] - fp8.logprob[i])));
    std::printf("gradient of a model: off by %.4f of its norm, cosine %.5f; log-probs by %.4f\n",
                std::sqrt(off / norm), product / std::sqrt(norm * size), moved);
    EXPECT_LT(std::sqrt(off / norm), 0.2);
    EXPECT_GT(product / std::sqrt(norm * size), 0.98);
    EXPECT_GT(moved, 0);
    EXPECT_LT(moved, 0.4);
    // Layers that are computed again give the same bits, and what both take is known before.
    EXPECT_EQ(Pass(weights, true, true).gradient, fp8.gradient);
    const PackedBatch batch = Batch();
    const PassSize size_of{.tokens = static_cast<int64_t>(batch.tokens.size()),
                           .rows = static_cast<int64_t>(batch.rows.size()),
                           .longest = 9};
    EXPECT_EQ(
        BytesOfTraining(weights, size_of, false, false, false, configs::Products::kFp8).total(),
        fp8.bytes);
    EXPECT_GT(fp8.bytes, exact.bytes);
  }
}

TEST(Fp8LinearTest, WhatCannotBeComputedSoIsRefused) {
  const auto refusal = [](const ModelShape& shape) -> std::string {
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    try {
      model.UseProducts(configs::Products::kFp8);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(refusal(Shape()), "");
  EXPECT_NE(refusal(Shape(64, 40)).find("layers.1.down is 64 x 40"), std::string::npos)
      << refusal(Shape(64, 40));
  ModelShape experts = Shape();
  experts.family = "plumb";
  experts.experts = {.count = 4, .widths = {16}, .per_token = 2};
  experts.experts.dense.assign(2, 0);
  EXPECT_NE(refusal(experts).find("experts"), std::string::npos) << refusal(experts);
  EXPECT_NE(refusal(experts).find("model.products"), std::string::npos);
}

// A layer's two products of a size that models have, both with what they cost around them.
TEST(Fp8LinearCuda, ItsSpeedIsPrinted) {
  if (!kernels::CudaAvailable() || kernels::ComputeCapability(Device::Cuda(0)) < 89)
    GTEST_SKIP() << "NO GPU of capability 8.9: products in FP8 were NOT timed here";
  const OwnedStream stream(Device::Cuda(0));
  constexpr int64_t kTokens = 8192;
  for (const auto& [hidden, ffn] : {std::pair<int64_t, int64_t>{896, 4864}, {4096, 14336}}) {
    const Weights weights(Shape(hidden, ffn), stream, DType::kBFloat16);
    FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
    FlatBuffer x(stream, DType::kBFloat16, kTokens * hidden),
        y(stream, DType::kBFloat16, kTokens * 2 * ffn);
    double seconds[2][2] = {};
    for (const bool fp8 : {false, true}) {
      Arena saved(stream), scratch(stream);
      PackedPass pass{{{.stream = stream, .dtype = DType::kBFloat16}, weights, {}},
                      {{.tokens = kTokens}},
                      nullptr,
                      true,
                      saved,
                      scratch};
      pass.fp8 = fp8;
      const std::vector<TrainedRun> all = {{.begin = 0, .end = grad.elements(), .at = 0}};
      pass.grad.base = &grad;
      pass.grad.base_runs = all;
      LinearLayer layer(weights.table().layer(0).gate_up, 2 * ffn, hidden);
      scratch.Begin();
      layer.Plan(pass, kTokens, scratch);
      scratch.Commit();
      for (const bool backward : {false, true}) {
        const auto run = [&] {
          if (backward) layer.Backward(pass, y.data(), x.data(), false, x.data());
          else layer.Forward(pass, x.data(), false, y.data());
        };
        run();
        stream.Synchronize();
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < 10; ++i) run();
        stream.Synchronize();
        seconds[fp8 ? 1 : 0][backward ? 1 : 0] =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 10;
      }
    }
    const double bf16 = seconds[0][0] + seconds[0][1], eight = seconds[1][0] + seconds[1][1];
    std::printf(
        "gate and up, %ld x %ld, %ld tokens: forward %.3f ms -> %.3f ms (x %.2f), backward "
        "%.3f ms -> %.3f ms (x %.2f), both x %.2f\n",
        static_cast<long>(2 * ffn), static_cast<long>(hidden), static_cast<long>(kTokens),
        1e3 * seconds[0][0], 1e3 * seconds[1][0], seconds[0][0] / seconds[1][0],
        1e3 * seconds[0][1], 1e3 * seconds[1][1], seconds[0][1] / seconds[1][1], bf16 / eight);
    EXPECT_LT(eight, 3 * bf16);
  }
}

}  // namespace
}  // namespace plumb::policy_model
