// Models of Plumb's own form through all layers: LayerNorm beside RMSNorm, and windows with
// positions that all tokens behind them see, attention sinks.
#include <gtest/gtest.h>

#include <cmath>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "kernels/paged_kv.h"
#include "policy_model/layers/branch.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

ModelShape Mixed(int64_t layers = 3) {
  ModelShape s;
  s.family = "plumb";
  s.layers = layers, s.hidden = 32, s.heads = 4, s.kv_heads = 2, s.head_dim = 8, s.ffn = 64;
  s.vocab = 40, s.max_positions = 64, s.window = 6, s.global_every = 5;
  for (int64_t l = 0; l < layers; ++l) s.layer_norms.push_back(l % 2 == 0 ? 1 : 0);
  s.final_layer_norm = true;
  s.sinks = true;
  return s;
}

// With norms and sinks that are neither 1 nor 0.
Weights Drawn(const ModelShape& shape) {
  SetThreads(1);
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  RandomStream random(4, 4);
  for (const TensorEntry& e : weights.table().entries()) {
    if (e.name.find("norm") == std::string::npos && !e.name.ends_with("sinks")) continue;
    for (int64_t i = 0; i < e.elements; ++i)
      weights.flat().f32()[e.offset + i] += 0.3f * random.NextNormal();
  }
  return weights;
}

std::vector<int32_t> Tokens(size_t n, uint64_t seed = 1) {
  RandomStream random(seed, 1);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(40)));
  return tokens;
}

std::vector<float> Logits(const Weights& weights, const std::vector<int32_t>& tokens) {
  PackedBatch batch;
  batch.Clear();
  batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  std::vector<float> out(batch.rows.size() * static_cast<size_t>(weights.shape().vocab));
  model.Logits(weights, batch, out);
  return out;
}

TEST(NewModels, GradientsAreFiniteDifferences) {
  Weights weights = Drawn(Mixed());
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  PackedBatch batch;
  batch.Clear();
  for (const size_t n : {30u, 7u}) batch.Append(Tokens(n, n), std::vector<uint8_t>(n, 1));
  std::vector<float> logprob(batch.rows.size()), g;
  for (size_t i = 0; i < logprob.size(); ++i) g.push_back(std::cos(static_cast<float>(i)));
  const auto loss = [&](bool keep) {
    model.Forward(weights, batch, {.entropy = false}, keep, logprob, {});
    double sum = 0;
    for (size_t i = 0; i < g.size(); ++i)
      sum += static_cast<double>(g[i]) * static_cast<double>(logprob[i]);
    return sum;
  };
  loss(true);
  FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g, {}, grad);
  // Along the gradient of each tensor, so that what is compared is its length and what is lost to
  // rounding is the smallest share.
  for (const TensorEntry& e : weights.table().entries()) {
    float* w = weights.flat().f32() + e.offset;
    const std::vector<float> before(w, w + e.elements);
    double length = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      length += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
    length = std::sqrt(length);
    ASSERT_GT(length, 1e-3) << e.name;
    double sides[2];
    const double step = 0.005;
    for (const int side : {0, 1}) {
      for (int64_t i = 0; i < e.elements; ++i) {
        w[i] = before[static_cast<size_t>(i)] +
               static_cast<float>((side == 0 ? step : -step) *
                                  static_cast<double>(grad.f32()[e.offset + i]) / length);
      }
      sides[side] = loss(false);
    }
    std::copy(before.begin(), before.end(), w);
    // Third derivatives times step^2 / 6, and float log-probs of 35 tokens over 2 step.
    EXPECT_NEAR((sides[0] - sides[1]) / (2 * step), length, 2e-3 * length + 2e-3) << e.name;
  }
}

// In one layer what a token sees is what its logits depend on.
TEST(NewModels, ATokenSeesItsWindowAndEveryFifthPosition) {
  const Weights weights = Drawn(Mixed(1));
  const auto tokens = Tokens(30);
  const auto before = Logits(weights, tokens);
  for (const size_t changed : {0u, 1u, 5u, 10u, 13u}) {
    auto other = tokens;
    other[changed] = (other[changed] + 1) % 40;
    const auto after = Logits(weights, other);
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const bool sees = changed <= i && (i < changed + 6 || changed % 5 == 0);
      bool same = true;
      for (size_t v = 0; v < 40; ++v) same = same && before[i * 40 + v] == after[i * 40 + v];
      EXPECT_EQ(same, !sees) << "position " << i << " after " << changed;
    }
  }
}

TEST(NewModels, PagedStepsAreThePackedForward) {
  for (const int64_t every : {5, 0}) {
    ModelShape shape = Mixed();
    shape.global_every = every;
    const Weights weights = Drawn(shape);
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    const auto tokens = Tokens(40);
    const auto packed = Logits(weights, tokens);
    kernels::PagedKv kv{.dtype = DType::kFloat32,
                        .layers = 3,
                        .num_pages = 10,
                        .page_tokens = 4,
                        .kv_heads = 2,
                        .head_dim = 8};
    std::vector<float> memory(static_cast<size_t>(kv.bytes() / 4), NAN);
    kv.pages = memory.data();
    const std::vector<int32_t> table = {7, 6, 5, 4, 3, 2, 1, 0, 9, 8};
    // A prompt of 13 in one call, then token by token.
    for (size_t begin = 0, end = 13; begin + 1 < tokens.size(); begin = end, ++end) {
      std::vector<int32_t> slot(end - begin, 0), position, all;
      for (size_t i = begin; i < end; ++i) {
        position.push_back(static_cast<int32_t>(i));
        all.push_back(static_cast<int32_t>(i - begin));
      }
      const kernels::PagedRows rows{static_cast<int32_t>(slot.size()), slot.data(), position.data(),
                                    table.data(), 10};
      const float* logits =
          model.ForwardPaged(weights, std::span(tokens).subspan(begin, end - begin), rows, kv, all);
      for (size_t i = begin; i < end && i + 1 < tokens.size(); ++i) {
        for (size_t v = 0; v < 40; ++v) {
          const double want = packed[i * 40 + v];
          // Sums of at most 64 products in another order, through 3 layers.
          ASSERT_NEAR(logits[(i - begin) * 40 + v], want, 2e-5 * std::max(1.0, std::abs(want)))
              << "position " << i;
        }
      }
    }
  }
}

TEST(NewModels, AFolderComesBackByteForByte) {
  const Weights weights = Drawn(Mixed());
  const testing::TempFolder first, second;
  SaveModelDirectory(weights, first.path(), "");
  Weights again(weights.shape(), Device::kCpu, DType::kFloat32);
  again.Load(first.path());
  SaveModelDirectory(again, second.path(), "");
  for (const char* name : {"config.json", "model.safetensors", "generation_config.json"}) {
    EXPECT_EQ(RealFileSystem().ReadFile(first / name, 1 << 24),
              RealFileSystem().ReadFile(second / name, 1 << 24))
        << name;
  }
}

}  // namespace
}  // namespace plumb::policy_model
