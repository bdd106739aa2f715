#include "learner/update/gradients/fresh_gradients.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/base/rng.h"
#include "policy_model/transformer.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::Gradients;
using policy_model::ModelShape;
using policy_model::PackedBatch;
using policy_model::Transformer;
using policy_model::Weights;

ModelShape Shape(bool tied) {
  return {.family = "qwen2",
          .layers = 2,
          .hidden = 256,  // matrices that are not small
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .ffn = 320,
          .vocab = 300,
          .max_positions = 64,
          .tied = tied,
          .attention_bias = true,
          .eos_tokens = {2}};
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  RandomStream random(3, 1);
  for (const int n : {7, 40, 12}) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(300)));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  return batch;
}

void Backward(Transformer& model, const Weights& weights, const Gradients& grad, float scale) {
  const PackedBatch batch = Batch();
  std::vector<float> logprob(batch.rows.size()), entropy(batch.rows.size()),
      g(batch.rows.size(), scale);
  model.Forward(weights, batch, {}, true, logprob, entropy);
  model.Backward(weights, batch, g, {}, grad);
}

std::vector<float> ToHost(const FlatBuffer& of) {
  std::vector<float> out(static_cast<size_t>(of.elements()));
  of.CopyToHost(std::as_writable_bytes(std::span<float>(out)));
  return out;
}

// What an earlier update left is in the way of none: two passes give what they add to zeros.
TEST(FreshGradientsTest, AreThoseThatWereZeroed) {
  for (const bool tied : {false, true}) {
    Weights weights(Shape(tied), Device::kCpu, DType::kFloat32);
    weights.Initialise(4, 0.1);
    Optimizer optimizer(weights, configs::OptimizerConfig{});
    Optimizer::SetState& state = optimizer.sets().front();
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    FlatBuffer wanted(Device::kCpu, DType::kFloat32, weights.flat().elements());
    for (const float scale : {0.7f, -0.2f}) Backward(model, weights, wanted, scale);
    FreshGradients fresh(state);
    model.SetParts(&weights.base(), &fresh);
    FlatBuffer none = FlatBuffer::WithoutMemory(Device::kCpu, DType::kFloat32, state.trained());
    for (int update = 0; update < 2; ++update) {
      for (const auto& entry : weights.table().entries())
        std::fill_n(state.grad.f32() + entry.offset, entry.elements, 7.0f);
      fresh.BeginUpdate();
      for (const float scale : {0.7f, -0.2f}) Backward(model, weights, none, scale);
      EXPECT_EQ(ToHost(state.grad), ToHost(wanted)) << tied << " " << update;
    }
  }
}

TEST(FreshGradientsTest, ATensorIsWrittenOnceAndWhatNobodyAsksForIsZeroed) {
  Weights weights(Shape(false), Device::kCpu, DType::kFloat32);
  Optimizer optimizer(weights, configs::OptimizerConfig{}, {.frozen = {"layers.1.mlp.down_proj"}});
  Optimizer::SetState& state = optimizer.sets().front();
  FreshGradients fresh(state);
  for (int64_t i = 0; i < state.trained(); ++i) state.grad.f32()[i] = 7;
  fresh.BeginUpdate();
  const auto& first = weights.table().layer(0);
  const auto& second = weights.table().layer(1);
  const int64_t down = 256 * 320;
  EXPECT_EQ(fresh.Gradient(second.down), nullptr) << "frozen";
  EXPECT_FALSE(fresh.TakeEmpty(second.down, down));
  EXPECT_FALSE(fresh.TakeEmpty(first.down, down - 1)) << "a part";
  EXPECT_TRUE(fresh.TakeEmpty(first.down, down));
  EXPECT_FALSE(fresh.TakeEmpty(first.down, down)) << "the second adds";
  EXPECT_EQ(*fresh.Gradient(first.down), 7) << "what is written is not zeroed";
  EXPECT_EQ(*fresh.Gradient(first.attention_norm), 0) << "small ones are";
  EXPECT_FALSE(fresh.TakeEmpty(first.attention_norm, 256));
  EXPECT_EQ(*fresh.Gradient(first.gate_up + 5), 0) << "zeroed when it is asked for";
  EXPECT_FALSE(fresh.TakeEmpty(first.gate_up, 2 * down));
  EXPECT_EQ(fresh.Weight(3), weights.flat().at(3));
  fresh.Settle();
  for (const auto& entry : weights.table().entries()) {
    const int64_t place = state.PlaceOf(entry);
    if (place < 0) continue;
    EXPECT_EQ(state.grad.f32()[place], entry.offset == first.down ? 7.0f : 0.0f) << entry.name;
    EXPECT_EQ(state.grad.f32()[place + entry.elements - 1],
              entry.offset == first.down ? 7.0f : 0.0f);
  }
}

// On a GPU an optimizer has them itself, and shows gradients as if they were zeroed.
TEST(FreshGradientsCuda, AnOptimizersAreZeroWhoeverLooks) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: gradients that are not zeroed were not looked at there";
  const OwnedStream stream(Device::Cuda(0));
  Weights weights(Shape(true), stream, DType::kFloat32);
  weights.Initialise(4, 0.1);
  Optimizer optimizer(weights, configs::OptimizerConfig{});
  ASSERT_NE(optimizer.parts(), nullptr);
  Transformer model(weights.shape(), stream, DType::kFloat32);
  model.SetParts(&weights.base(), optimizer.parts());
  std::vector<float> first;
  for (int update = 0; update < 2; ++update) {
    optimizer.ZeroGrad();
    const std::vector<float> zeros = ToHost(optimizer.grad());
    EXPECT_EQ(std::count(zeros.begin(), zeros.end(), 0.0f), std::ssize(zeros));
    optimizer.ZeroGrad();
    Backward(model, weights, optimizer.gradients(), 1);
    const std::vector<float> grad = ToHost(optimizer.grad());
    if (update == 0) first = grad;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < grad.size(); ++i) {
      difference += double(grad[i] - first[i]) * double(grad[i] - first[i]);
      norm += double(grad[i]) * double(grad[i]);
    }
    EXPECT_GT(norm, 0);
    EXPECT_LE(difference, 1e-8 * norm) << "of the same pass";
  }
  optimizer.ZeroGrad();
  EXPECT_EQ(optimizer.Update(1e-3, 1.0).grad_norm, 0) << "an update without a pass";
}

}  // namespace
}  // namespace plumb::learner
