// Layers with states in a packed batch: no state goes from one sequence to the next, and what goes
// on from a prefix has that one's. Values and gradients against transformers: families_test.cc.
#include "policy_model/layers/hybrid/delta_stage.h"

#include <gtest/gtest.h>

#include <cmath>

#include "policy_model/families/model_config.h"
#include "policy_model/layers/hybrid/conv_stage.h"
#include "policy_model/layers/hybrid/packed_shape.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

class StatefulTest : public ::testing::TestWithParam<std::string> {
 protected:
  StatefulTest() { WriteFamilyFolder(GetParam(), temp_.path()); }
  Weights Load() const {
    Weights weights(ReadModelConfig(temp_.path()), Device::kCpu, DType::kFloat32);
    weights.Load(temp_.path());
    return weights;
  }

  testing::TempFolder temp_;
};

std::vector<int32_t> Tokens(int32_t n, int32_t seed) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n; ++i) tokens.push_back((seed + i * i + 5 * i) % 37);
  return tokens;
}

std::vector<uint8_t> All(const std::vector<int32_t>& tokens) {
  return std::vector<uint8_t>(tokens.size(), 1);
}

std::vector<float> LogProbs(const Weights& weights, const PackedBatch& batch) {
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  std::vector<float> out(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, false, out, {});
  return out;
}

TEST_P(StatefulTest, NothingGoesFromOneSequenceToTheNext) {
  const Weights weights = Load();
  // Of every boundary: other tokens before it change no bit behind it, nor others behind it one
  // before it.
  const std::vector<int32_t> lengths = {2, 5, 1, 9, 3, 17};
  const auto batch_of = [&](size_t changed) {
    PackedBatch batch;
    batch.Clear();
    for (size_t s = 0; s < lengths.size(); ++s) {
      const auto tokens = Tokens(lengths[s], s == changed ? 21 : static_cast<int32_t>(s));
      batch.Append(tokens, All(tokens));
    }
    return batch;
  };
  const std::vector<float> before = LogProbs(weights, batch_of(lengths.size()));
  for (size_t changed = 0; changed < lengths.size(); ++changed) {
    const std::vector<float> after = LogProbs(weights, batch_of(changed));
    size_t row = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (int32_t i = 1; i < lengths[s]; ++i, ++row) {
        if (s == changed) continue;
        // The products of an expert have as many rows as tokens went to it: their last bits change.
        if (weights.shape().experts.count > 0) {
          ASSERT_NEAR(before[row], after[row], 1e-4) << changed << " changed " << s;
        } else {
          ASSERT_EQ(before[row], after[row]) << changed << " changed " << s;
        }
      }
    }
  }
}

TEST_P(StatefulTest, WhatGoesOnFromAPrefixIsTheWholeSequence) {
  const Weights weights = Load();
  const auto prefix = Tokens(11, 4);
  PackedBatch shared, whole;
  shared.Clear();
  whole.Clear();
  shared.AppendPrefix(prefix);
  for (const int32_t own : {7, 2, 20}) {
    auto tokens = prefix;
    const auto more = Tokens(own, own);
    tokens.insert(tokens.end(), more.begin(), more.end());
    std::vector<uint8_t> mask(tokens.size(), 0);
    for (size_t i = prefix.size() + 1; i < tokens.size(); ++i) mask[i] = 1;
    shared.Append(tokens, mask, static_cast<int32_t>(prefix.size()));
    whole.Append(tokens, mask);
  }
  ASSERT_TRUE(shared.shares());
  ASSERT_EQ(shared.rows.size(), whole.rows.size());
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  std::vector<float> g;
  for (size_t i = 0; i < whole.rows.size(); ++i) g.push_back(std::cos(static_cast<float>(i)));
  const auto run = [&](const PackedBatch& batch, std::vector<float>& logprob, FlatBuffer& grad) {
    logprob.resize(batch.rows.size());
    model.Forward(weights, batch, {.entropy = false}, true, logprob, {});
    model.Backward(weights, batch, g, {}, grad);
  };
  std::vector<float> together, apart;
  FlatBuffer of_shared(Device::kCpu, DType::kFloat32, weights.flat().elements()),
      of_whole(Device::kCpu, DType::kFloat32, weights.flat().elements());
  run(shared, together, of_shared);
  run(whole, apart, of_whole);
  // Sums in another order, of values of some tens, through 4 layers.
  for (size_t i = 0; i < together.size(); ++i) EXPECT_NEAR(together[i], apart[i], 1e-4) << i;
  for (const TensorEntry& e : weights.table().entries()) {
    double gap = 0, norm = 0;
    for (int64_t i = e.offset; i < e.offset + e.elements; ++i) {
      gap += std::pow(
          static_cast<double>(of_shared.f32()[i]) - static_cast<double>(of_whole.f32()[i]), 2);
      norm += std::pow(static_cast<double>(of_whole.f32()[i]), 2);
    }
    EXPECT_GT(norm, 0) << e.name;
    EXPECT_LE(std::sqrt(gap), 1e-4 * std::sqrt(norm)) << e.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, StatefulTest,
                         ::testing::Values("qwen3_5", "qwen3_5_moe", "qwen3_next_moe", "lfm2"),
                         [](const auto& info) { return info.param; });

TEST(PackedShape, OfAStepHasNoSequences) {
  kernels::ShortConvShape step{.channels = 4}, plain{.channels = 4};
  FillSequences(nullptr, step);
  EXPECT_EQ(step.tokens, plain.tokens);
  EXPECT_EQ(step.sequences, 0);
  EXPECT_EQ(step.cu_seqlens, nullptr);
  EXPECT_EQ(step.parents, nullptr);
}

}  // namespace
}  // namespace plumb::policy_model
