// Products of layers in float16 (policy_model/layers/fp16/fp16_linear.h): they are those of rounded
// operands, with and without adapters; a GPU computes what the CPU does; what they take is planned.
#include "policy_model/layers/fp16/fp16_linear.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "kernels/device/device_memory.h"
#include "kernels/fp16/half_codes.h"
#include "policy_model/layers/linear.h"
#include "policy_model/pass_bytes.h"
#include "policy_model/pass_products.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

using configs::Products;

ModelShape Shape(int64_t hidden = 64, int64_t ffn = 40) {
  return {.family = "llama",
          .layers = 2,
          .hidden = hidden,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn = ffn,
          .vocab = 41,
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

constexpr int64_t kRows = 2 * 40, kColumns = 64, kTokens = 37;

struct Operands {
  std::vector<float> x, w, dy;
  explicit Operands(DType dtype)
      : x(Normal(kTokens * kColumns, 1, dtype)),
        w(Normal(kRows * kColumns, 2, dtype)),
        dy(Normal(kTokens * kRows, 3, dtype)) {
    for (size_t i = 0; i < dy.size(); ++i) dy[i] *= std::exp2f(static_cast<float>(i % 24) - 20);
  }
};

// y = 1 + x W^T, dx = 1 + dy W, both added to what is there, and dW.
struct Seen {
  std::vector<float> y, dx, dw;
};

Seen Compute(const Stream& stream, DType dtype, const Operands& of) {
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
                  {{.tokens = kTokens}},
                  nullptr,
                  true,
                  saved,
                  scratch};
  SetProducts(Products::kFp16, pass);
  const std::vector<TrainedRun> all = {{.begin = 0, .end = weights.flat().elements(), .at = 0}};
  pass.grad.base = &grad;
  pass.grad.base_runs = all;
  LinearLayer layer(at, kRows, kColumns);
  scratch.Begin();
  layer.Plan(pass, kTokens, scratch);
  scratch.Commit();
  FlatBuffer y = Put(stream, dtype, std::vector<float>(of.dy.size(), 1.0f)),
             dx = Put(stream, dtype, std::vector<float>(of.x.size(), 1.0f));
  layer.Forward(pass, x.data(), /*accumulate=*/true, y.data());
  layer.Backward(pass, dy.data(), x.data(), /*accumulate=*/true, dx.data());
  const std::vector<float> all_grad = Get(grad);
  const auto first = all_grad.begin() + at;
  return {Get(y), Get(dx), {first, first + kRows * kColumns}};
}

double Half(float x) { return static_cast<double>(kernels::HalfValue(kernels::HalfCode(x))); }

// Each element of out[m, n] = `more` + sum over k of rounded a(i, t) b(t, j).
template <class A, class B>
void ExpectProduct(const std::vector<float>& out, int64_t m, int64_t n, int64_t k, double more,
                   double rounding, const A& a, const B& b) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = more, size = std::abs(more);
      for (int64_t t = 0; t < k; ++t) {
        const double term = Half(a(i, t)) * Half(b(t, j));
        sum += term;
        size += std::abs(term);
      }
      const auto found = static_cast<double>(out[static_cast<size_t>(i * n + j)]);
      ASSERT_NEAR(found, sum, rounding * std::abs(sum) + 4e-6 * size) << i << " " << j;
    }
  }
}

void ExpectProductsOfRoundedOperands(const Stream& stream) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Operands of(dtype);
    const Seen seen = Compute(stream, dtype, of);
    const double rounding = dtype == DType::kFloat32 ? 1e-6 : 1.0 / 256;
    const auto in = [](const std::vector<float>& from, int64_t columns) {
      return [&from, columns](int64_t r, int64_t c) {
        return from[static_cast<size_t>(r * columns + c)];
      };
    };
    const auto x = in(of.x, kColumns), w = in(of.w, kColumns), dy = in(of.dy, kRows);
    const auto turned = [](const auto& matrix) {
      return [&matrix](int64_t r, int64_t c) { return matrix(c, r); };
    };
    ExpectProduct(seen.y, kTokens, kRows, kColumns, 1, rounding, x, turned(w));
    ExpectProduct(seen.dx, kTokens, kColumns, kRows, 1, rounding, dy, w);
    ExpectProduct(seen.dw, kRows, kColumns, kTokens, 0, 1e-6, turned(dy), x);
  }
}

TEST(Fp16LinearTest, ProductsAreThoseOfRoundedOperands) {
  ExpectProductsOfRoundedOperands(Device::kCpu);
}

TEST(Fp16LinearCuda, ProductsAreThoseOfRoundedOperands) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: products in float16 were NOT tried here";
  const OwnedStream stream(Device::Cuda(0));
  ExpectProductsOfRoundedOperands(stream);
}

TEST(Fp16LinearTest, AnOperandThatIsTooLargeShows) {
  Operands of(DType::kFloat32);
  of.dy[5] = 1e5f;
  of.x[0] = 0.5f;
  const Seen seen = Compute(Device::kCpu, DType::kFloat32, of);
  EXPECT_FALSE(std::isfinite(seen.dx[0])) << "of the first token";
  EXPECT_TRUE(std::isfinite(seen.dx.back()));
  EXPECT_FALSE(std::isfinite(seen.dw[5 * kColumns]));
  EXPECT_TRUE(std::isfinite(seen.y[5]));
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

Passed Pass(const Weights& weights, Products products, bool recompute) {
  Transformer model(weights.shape(), weights.stream(), weights.dtype());
  model.UseProducts(products);
  model.RecomputeLayers(recompute);
  const PackedBatch batch = Batch();
  Passed out;
  out.logprob.resize(batch.rows.size());
  std::vector<float> entropy(batch.rows.size()), g(batch.rows.size(), 1.0f);
  FlatBuffer grad(weights.stream(), DType::kFloat32, weights.flat().elements());
  std::vector<FlatBuffer> of_adapters;
  std::vector<FlatBuffer*> adapters;
  for (const auto& set : weights.adapters())
    of_adapters.emplace_back(weights.stream(), DType::kFloat32, set->flat.elements());
  for (FlatBuffer& each : of_adapters) adapters.push_back(&each);
  Gradients into;
  into.base = adapters.empty() ? &grad : nullptr;
  into.adapters = adapters;
  model.Forward(weights, batch, {}, true, out.logprob, entropy);
  model.Backward(weights, batch, g, {}, into);
  out.gradient = Get(adapters.empty() ? grad : of_adapters.front());
  out.bytes = model.arena_bytes();
  return out;
}

double Apart(const std::vector<float>& a, const std::vector<float>& b) {
  double off = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    off += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(a[i]), 2);
  }
  return std::sqrt(off / norm);
}

Weights Drawn(const Stream& stream, DType dtype, bool adapter) {
  Weights weights(Shape(), stream, dtype);
  weights.Initialise(3, 0.1);
  if (!adapter) return weights;
  weights.AddAdapter({.rank = 3, .alpha = 8}, 5);
  // B begins at 0 and hides the gradient of A.
  const std::vector<float> drawn = Normal(weights.adapters()[0]->flat.elements(), 9, dtype);
  std::vector<float> small;
  for (const float x : drawn) small.push_back(0.1f * x);
  std::vector<std::byte> bytes(weights.adapters()[0]->flat.bytes());
  ConvertFloat(small, dtype, bytes.data());
  weights.adapters()[0]->flat.CopyFromHost(bytes);
  return weights;
}

TEST(Fp16LinearTest, AModelsGradientIsCloseToThatOfItsType) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool adapter : {false, true}) {
      const Weights weights = Drawn(Device::kCpu, dtype, adapter);
      const Passed exact = Pass(weights, Products::kDType, false),
                   fp16 = Pass(weights, Products::kFp16, false);
      const double off = Apart(exact.gradient, fp16.gradient);
      std::printf("gradient of a model%s: off by %.5f of its norm\n", adapter ? "'s adapter" : "",
                  off);
      EXPECT_LT(off, dtype == DType::kFloat32 ? 0.003 : 0.03);
      if (dtype == DType::kFloat32) {
        EXPECT_GT(off, 1e-5) << "these are 16 bits";
      }
      EXPECT_LT(Apart(exact.logprob, fp16.logprob), 0.01);
      // Layers that are computed again give the same bits, and what both take is known before.
      EXPECT_EQ(Pass(weights, Products::kFp16, true).gradient, fp16.gradient);
      const PackedBatch batch = Batch();
      const PassSize size{.tokens = static_cast<int64_t>(batch.tokens.size()),
                          .rows = static_cast<int64_t>(batch.rows.size()),
                          .longest = 9};
      EXPECT_EQ(BytesOfTraining(weights, size, false, false, false, Products::kFp16).total(),
                fp16.bytes);
      EXPECT_GT(fp16.bytes, exact.bytes);
    }
  }
}

TEST(Fp16LinearCuda, AModelsGradientIsThatOfTheCpu) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: passes in float16 were NOT tried here";
  const OwnedStream stream(Device::Cuda(0));
  for (const bool adapter : {false, true}) {
    const Passed gpu = Pass(Drawn(stream, DType::kFloat32, adapter), Products::kFp16, false),
                 cpu = Pass(Drawn(Device::kCpu, DType::kFloat32, adapter), Products::kFp16, false);
    EXPECT_LT(Apart(cpu.gradient, gpu.gradient), 2e-3) << adapter;
    EXPECT_LT(Apart(cpu.logprob, gpu.logprob), 1e-4) << adapter;
    const Passed narrow = Pass(Drawn(stream, DType::kBFloat16, adapter), Products::kFp16, false),
                 there =
                     Pass(Drawn(Device::kCpu, DType::kBFloat16, adapter), Products::kFp16, false);
    EXPECT_LT(Apart(there.gradient, narrow.gradient), 0.03) << adapter;
  }
}

TEST(Fp16LinearTest, ExpertsAreRefused) {
  ModelShape experts = Shape();
  experts.family = "plumb";
  experts.experts = {.count = 4, .widths = {16}, .per_token = 2};
  experts.experts.dense.assign(2, 0);
  Transformer model(experts, Device::kCpu, DType::kFloat32);
  try {
    model.UseProducts(Products::kFp16);
    FAIL() << "experts";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("leave it at \"dtype\""), std::string::npos) << e.what();
  }
}

// A layer's products of a size that models have, with what they cost around them.
TEST(Fp16LinearCuda, ItsSpeedIsPrinted) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: products in float16 were NOT timed here";
  const OwnedStream stream(Device::Cuda(0));
  constexpr int64_t kMany = 8192, kHidden = 2048, kWide = 2 * 8192;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Weights weights(Shape(kHidden, kWide / 2), stream, dtype);
    FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
    FlatBuffer x(stream, dtype, kMany * kHidden), y(stream, dtype, kMany * kWide);
    double seconds[2] = {};
    for (const Products products : {Products::kDType, Products::kFp16}) {
      Arena saved(stream), scratch(stream);
      PackedPass pass{{{.stream = stream, .dtype = dtype}, weights, {}},
                      {{.tokens = kMany}},
                      nullptr,
                      true,
                      saved,
                      scratch};
      SetProducts(products, pass);
      const std::vector<TrainedRun> all = {{.begin = 0, .end = grad.elements(), .at = 0}};
      pass.grad.base = &grad;
      pass.grad.base_runs = all;
      LinearLayer layer(weights.table().layer(0).gate_up, kWide, kHidden);
      scratch.Begin();
      layer.Plan(pass, kMany, scratch);
      scratch.Commit();
      const auto run = [&] {
        layer.Forward(pass, x.data(), false, y.data());
        layer.Backward(pass, y.data(), x.data(), false, x.data());
      };
      run();
      stream.Synchronize();
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < 10; ++i) run();
      stream.Synchronize();
      seconds[products == Products::kFp16] =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 10;
    }
    std::printf("gate and up, %s, %ld tokens: %.3f ms -> %.3f ms in float16 (x %.2f)\n",
                dtype == DType::kFloat32 ? "float32" : "bfloat16", static_cast<long>(kMany),
                1e3 * seconds[0], 1e3 * seconds[1], seconds[0] / seconds[1]);
    EXPECT_LT(seconds[1], 3 * seconds[0]);
  }
}

}  // namespace
}  // namespace plumb::policy_model
