// The scalar head of policy_model/transformer.h, weights.h, staging.h and attention.h: values,
// their gradient, and the way from a policy to a model with such a head.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/layers/attention.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/staging.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape(bool tied) {
  return {.layers = 2,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 40,
          .vocab = 31,
          .max_positions = 64,
          .tied = tied,
          .eos_tokens = {2}};
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  RandomStream random(3, 1);
  for (int n : {7, 12, 5}) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(31)));
    batch.AppendRows(tokens, std::vector<int32_t>{1, n - 1});
  }
  return batch;
}

TEST(ScalarHeadTest, RowsAreThoseAskedFor) {
  const PackedBatch batch = Batch();
  EXPECT_EQ(batch.rows, (std::vector<int32_t>{1, 6, 8, 18, 20, 23}));
  EXPECT_EQ(batch.targets, std::vector<int32_t>(6, 0));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 7, 19, 24}));
}

TEST(ScalarHeadTest, KeepsTheTrunkOfThePolicyBitForBit) {
  for (bool tied : {true, false}) {
    Weights policy(Shape(tied), Device::kCpu, DType::kFloat32);
    policy.Initialise(4, 0.3);
    const Weights model = ScalarHeadFrom(policy, 9);
    EXPECT_TRUE(model.shape().scalar_head);
    EXPECT_EQ(model.table().lm_head(), -1);
    for (const TensorEntry& e : model.table().entries()) {
      if (e.name == "score") continue;
      bool found = false;
      for (const TensorEntry& p : policy.table().entries()) {
        if (p.name != e.name) continue;
        found = true;
        EXPECT_EQ(std::memcmp(model.flat().f32() + e.offset, policy.flat().f32() + p.offset,
                              sizeof(float) * static_cast<size_t>(e.elements)),
                  0)
            << e.name;
      }
      EXPECT_TRUE(found) << e.name;
    }
    // The head is drawn, keyed by the seed.
    EXPECT_EQ(ScalarHeadFrom(policy, 9).ComputeDigest(), model.ComputeDigest());
    EXPECT_NE(ScalarHeadFrom(policy, 10).ComputeDigest(), model.ComputeDigest());
  }
}

TEST(ScalarHeadTest, ValuesAreLinearInTheHead) {
  Weights policy(Shape(true), Device::kCpu, DType::kFloat32);
  policy.Initialise(4, 0.3);
  Weights model = ScalarHeadFrom(policy, 9);
  Transformer transformer(model.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = Batch();
  std::vector<float> once(6), twice(6);
  transformer.ForwardValues(model, batch, false, once);
  for (int64_t i = 0; i < 32; ++i) model.flat().f32()[model.table().score() + i] *= 2;
  transformer.ForwardValues(model, batch, false, twice);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NE(once[i], 0) << i;
    EXPECT_FLOAT_EQ(twice[i], 2 * once[i]) << i;
  }
  // A sequence's value does not see its neighbours in the batch.
  PackedBatch alone;
  alone.Clear();
  alone.AppendRows(std::span(batch.tokens).subspan(7, 12), std::vector<int32_t>{1, 11});
  std::vector<float> value(2);
  transformer.ForwardValues(model, alone, false, value);
  EXPECT_NEAR(value[0], twice[2], 1e-5);
  EXPECT_NEAR(value[1], twice[3], 1e-5);
}

TEST(ScalarHeadTest, BackwardMatchesFiniteDifferences) {
  Weights policy(Shape(true), Device::kCpu, DType::kFloat32);
  policy.Initialise(4, 0.3);
  Weights model = ScalarHeadFrom(policy, 9);
  Transformer transformer(model.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = Batch();
  const std::vector<float> g = {0.5f, -1.0f, 0.25f, 2.0f, -0.75f, 1.5f};
  std::vector<float> values(6);
  const auto loss = [&] {
    transformer.ForwardValues(model, batch, true, values);
    double sum = 0;
    for (size_t i = 0; i < g.size(); ++i) sum += double{g[i]} * double{values[i]};
    return sum;
  };
  FlatBuffer grad(Device::kCpu, DType::kFloat32, model.flat().elements());
  loss();
  transformer.BackwardValues(model, batch, g, grad);
  RandomStream random(8, 8);
  for (const TensorEntry& e : model.table().entries()) {
    // A random direction a tensor: the slope along it is the product with the gradient. Central
    // difference, error O(h^2).
    std::vector<float> direction(static_cast<size_t>(e.elements));
    double expected = 0, norm = 0;
    for (int64_t i = 0; i < e.elements; ++i) {
      direction[static_cast<size_t>(i)] = random.NextNormal();
      expected += double{direction[static_cast<size_t>(i)]} * double{grad.f32()[e.offset + i]};
      norm += double{grad.f32()[e.offset + i]} * double{grad.f32()[e.offset + i]};
    }
    ASSERT_GT(norm, 0) << e.name;
    const std::vector<float> kept(model.flat().f32() + e.offset,
                                  model.flat().f32() + e.offset + e.elements);
    const double h = 2e-3 / std::sqrt(static_cast<double>(e.elements));
    double side[2];
    for (int s : {0, 1}) {
      for (int64_t i = 0; i < e.elements; ++i) {
        model.flat().f32()[e.offset + i] =
            kept[static_cast<size_t>(i)] +
            static_cast<float>((s ? h : -h) * double{direction[static_cast<size_t>(i)]});
      }
      side[s] = loss();
    }
    std::copy(kept.begin(), kept.end(), model.flat().f32() + e.offset);
    const double slope = (side[1] - side[0]) / (2 * h);
    // fp32 forward: rounding of the loss (about 1e-6) over 2h, plus 2 % of the slope for curvature.
    EXPECT_NEAR(slope, expected, 0.02 * std::abs(expected) + 2e-6 / (2 * h)) << e.name;
  }
}

// Log-probs, entropies and values from one trunk: the whole gradient, trunk and both heads, along
// random directions.
TEST(ScalarHeadTest, SharedHeadBackwardMatchesFiniteDifferences) {
  for (bool tied : {true, false}) {
    Weights policy(Shape(tied), Device::kCpu, DType::kFloat32);
    policy.Initialise(4, 0.3);
    Weights head = ValueHeadFor(policy, 9);
    Transformer transformer(policy.shape(), Device::kCpu, DType::kFloat32);
    EXPECT_THROW(Transformer(head.shape(), Device::kCpu, DType::kFloat32), Error);
    const PackedBatch batch = Batch();
    const std::vector<float> g = {0.5f, -1.0f, 0.25f, 2.0f, -0.75f, 1.5f},
                             g_lp = {0.3f, 0, -0.2f, 1, 0.1f, -0.6f};
    const std::vector<float> g_entropy = {0.1f, -0.3f, 0, 0.2f, 0.4f, 0};
    std::vector<float> values(6), logprob(6), entropy(6);
    const auto loss = [&] {
      transformer.Forward(policy, batch, {.temperature = 0.9f, .entropy = true}, true, logprob,
                          entropy);
      transformer.HeadValues(head, values);
      double sum = 0;
      for (size_t i = 0; i < 6; ++i) {
        sum += double{g[i]} * double{values[i]} + double{g_lp[i]} * double{logprob[i]} +
               double{g_entropy[i]} * double{entropy[i]};
      }
      return sum;
    };
    // The same numbers as a model of its own with that trunk and that head.
    loss();
    Weights own = ScalarHeadFrom(policy, 9);
    Transformer other(own.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> own_values(6);
    other.ForwardValues(own, batch, false, own_values);
    EXPECT_EQ(values, own_values);

    FlatBuffer grad(Device::kCpu, DType::kFloat32, policy.flat().elements());
    FlatBuffer head_grad(Device::kCpu, DType::kFloat32, head.flat().elements());
    const Transformer::SharedHead shared{.head = &head, .g_values = g, .grad = &head_grad};
    loss();
    transformer.Backward(policy, batch, g_lp, g_entropy, grad, &shared);
    RandomStream random(8, 8);
    const auto check = [&](Weights& weights, const FlatBuffer& gradient, const TensorEntry& e) {
      std::vector<float> direction(static_cast<size_t>(e.elements));
      double expected = 0;
      for (int64_t i = 0; i < e.elements; ++i) {
        direction[static_cast<size_t>(i)] = random.NextNormal();
        expected +=
            double{direction[static_cast<size_t>(i)]} * double{gradient.f32()[e.offset + i]};
      }
      EXPECT_NE(expected, 0) << e.name;
      float* at = weights.flat().f32() + e.offset;
      const std::vector<float> kept(at, at + e.elements);
      const double h = 2e-3 / std::sqrt(static_cast<double>(e.elements));
      double side[2];
      for (int s : {0, 1}) {
        for (size_t i = 0; i < kept.size(); ++i)
          at[i] = kept[i] + static_cast<float>((s ? h : -h) * double{direction[i]});
        side[s] = loss();
      }
      std::copy(kept.begin(), kept.end(), at);
      EXPECT_NEAR((side[1] - side[0]) / (2 * h), expected,
                  0.02 * std::abs(expected) + 4e-6 / (2 * h))
          << e.name;
    };
    for (const TensorEntry& e : policy.table().entries()) check(policy, grad, e);
    for (const TensorEntry& e : head.table().entries()) {
      if (e.name == "score") check(head, head_grad, e);
    }
  }
}

TEST(StagingTest, KeepsArraysInPlaceOnTheCpu) {
  Staging staging(Device::kCpu);
  const std::vector<int32_t> a = {1, 2, 3};
  const std::vector<float> b = {0.5f};
  staging.Begin();
  const int first = staging.Add(std::span<const int32_t>(a)),
            second = staging.Add(std::span<const float>(b));
  staging.Commit();
  EXPECT_EQ(staging.Ints(first), a.data());
  EXPECT_EQ(staging.Floats(second), b.data());
}

TEST(AttentionTest, LogSumExpHasOneEntryAHeadAndToken) {
  kernels::VarlenShape shape{
      .tokens = 10, .sequences = 2, .max_seqlen = 7, .heads = 3, .kv_heads = 1, .head_dim = 8};
  EXPECT_EQ(AttentionLseElements({}, shape), 30);
  // LibTorch's float32 operator pads each sequence to 32 rows.
  int nothing = 0;
  EXPECT_EQ(AttentionLseElements({.stream = Stream::Borrow(Device::Cuda(0), &nothing)}, shape),
            2 * 3 * 32);
}

}  // namespace
}  // namespace plumb::policy_model
