// Adapters of experts' parameters, through a model: gradients, paged steps, merging, files, and
// what is refused.
#include "policy_model/layers/expert_adapters.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "kernels/paged_kv.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kVocab = 30, kExperts = 4, kRank = 3;

ModelShape Shape() {
  SetThreads(1);
  ModelShape s;
  s.family = "plumb";
  s.layers = 2, s.hidden = 16, s.heads = 2, s.kv_heads = 1, s.head_dim = 8, s.ffn = 12;
  s.vocab = kVocab, s.max_positions = 64;
  s.experts = {.count = kExperts, .widths = {12}, .per_token = 2};
  return s;
}

AdapterSpec Spec(const std::vector<std::string>& targets) {
  AdapterSpec spec{.rank = kRank, .alpha = 5};
  SetTargets(targets, spec);
  return spec;
}

// With numbers in B.
Weights Adapted(const AdapterSpec& spec) {
  Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  weights.AddAdapter(spec, 7);
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const TensorEntry& e : set.table->entries()) {
    if (!e.name.ends_with("lora_B")) continue;
    for (int64_t i = 0; i < e.elements; ++i)
      set.flat.f32()[e.offset + i] = 0.2f * random.NextNormal();
  }
  return weights;
}

std::vector<int32_t> Tokens(size_t n) {
  RandomStream random(5, 1);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
  return tokens;
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  batch.Append(Tokens(24), std::vector<uint8_t>(24, 1));
  return batch;
}

std::vector<float> Logits(const Weights& weights) {
  const PackedBatch batch = Batch();
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  std::vector<float> out(batch.rows.size() * kVocab);
  model.Logits(weights, batch, out);
  return out;
}

const std::vector<std::string> kBoth = {"experts.gate_up_proj", "experts.down_proj"};

TEST(ExpertAdapters, GradientsAreFiniteDifferences) {
  Weights weights = Adapted(Spec({"q_proj", "experts.gate_up_proj", "experts.down_proj"}));
  ParameterSet& set = *weights.adapters()[0];
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = Batch();
  std::vector<float> logprob(batch.rows.size()), g;
  for (size_t i = 0; i < logprob.size(); ++i) g.push_back(std::cos(static_cast<float>(i)));
  const auto loss = [&](bool keep) {
    model.Forward(weights, batch, {.entropy = false}, keep, logprob, {});
    double sum = 0;
    for (size_t i = 0; i < g.size(); ++i)
      sum += static_cast<double>(g[i]) * static_cast<double>(logprob[i]);
    return sum;
  };
  for (const bool recompute : {false, true}) {
    model.RecomputeLayers(recompute);
    loss(true);
    FlatBuffer grad(Device::kCpu, DType::kFloat32, set.flat.elements());
    FlatBuffer* const of_adapters[] = {&grad};
    Gradients to;
    to.adapters = of_adapters;
    model.Backward(weights, batch, g, {}, to);
    size_t of_experts = 0;
    for (const TensorEntry& e : set.table->entries()) {
      of_experts += e.name.find("experts.") != std::string::npos;
      float* w = set.flat.f32() + e.offset;
      const std::vector<float> before(w, w + e.elements);
      double length = 0;
      for (int64_t i = 0; i < e.elements; ++i)
        length += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
      length = std::sqrt(length);
      ASSERT_GT(length, 1e-3) << e.name;
      double sides[2];
      const double step = 0.003;
      for (const int side : {0, 1}) {
        for (int64_t i = 0; i < e.elements; ++i) {
          w[i] = before[static_cast<size_t>(i)] +
                 static_cast<float>((side == 0 ? step : -step) *
                                    static_cast<double>(grad.f32()[e.offset + i]) / length);
        }
        sides[side] = loss(false);
      }
      std::copy(before.begin(), before.end(), w);
      EXPECT_NEAR((sides[0] - sides[1]) / (2 * step), length, 3e-3 * length + 3e-3) << e.name;
    }
    EXPECT_EQ(of_experts, 8u) << "A and B of two parameters in two layers";
  }
}

TEST(ExpertAdapters, EachExpertHasItsOwnInPeftsLayout) {
  const Weights weights = Adapted(Spec(kBoth));
  const ParameterSet& set = *weights.adapters()[0];
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const TensorEntry& e : set.table->entries()) shapes[e.parts[0].file_tensor] = e.shape;
  const std::string module = "base_model.model.model.layers.1.mlp.experts.";
  EXPECT_EQ(shapes.size(), 8u);
  EXPECT_EQ(shapes[module + "base_layer.lora_A.weight"], (std::vector<int64_t>{12, 16}));
  EXPECT_EQ(shapes[module + "base_layer.lora_B.weight"], (std::vector<int64_t>{24, 12}));
  EXPECT_EQ(shapes[module + "lora_A.weight"], (std::vector<int64_t>{12, 12}));
  EXPECT_EQ(shapes[module + "lora_B.weight"], (std::vector<int64_t>{16, 12}));
  // One alone is not nested.
  const Weights one = Adapted(Spec({"mlp.experts.gate_up_proj"}));
  for (const TensorEntry& e : one.adapters()[0]->table->entries())
    EXPECT_EQ(e.parts[0].file_tensor.find("base_layer"), std::string::npos);
}

TEST(ExpertAdapters, MergedTheyComputeTheSame) {
  Weights weights = Adapted(Spec(kBoth));
  const auto want = Logits(weights);
  Weights plain(Shape(), Device::kCpu, DType::kFloat32);
  plain.Initialise(3, 0.2);
  const auto without = Logits(plain);
  weights.Merge();
  const auto got = Logits(weights);
  double moved = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 2e-5) << i;
    moved = std::max(moved, std::abs(static_cast<double>(want[i] - without[i])));
  }
  EXPECT_GT(moved, 0.01);
}

TEST(ExpertAdapters, PagedStepsAreThePackedForward) {
  const Weights weights = Adapted(Spec(kBoth));
  const auto packed = Logits(weights);
  const auto tokens = Tokens(24);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  kernels::PagedKv kv{.dtype = DType::kFloat32,
                      .layers = 2,
                      .num_pages = 1,
                      .page_tokens = 24,
                      .kv_heads = 1,
                      .head_dim = 8};
  std::vector<float> memory(static_cast<size_t>(kv.bytes() / 4), NAN);
  kv.pages = memory.data();
  const std::vector<int32_t> table = {0};
  for (size_t begin = 0, end = 9; begin + 1 < tokens.size(); begin = end, ++end) {
    std::vector<int32_t> slot(end - begin, 0), position, all;
    for (size_t i = begin; i < end; ++i) {
      position.push_back(static_cast<int32_t>(i));
      all.push_back(static_cast<int32_t>(i - begin));
    }
    const kernels::PagedRows rows{static_cast<int32_t>(slot.size()), slot.data(), position.data(),
                                  table.data(), 1};
    const float* logits =
        model.ForwardPaged(weights, std::span(tokens).subspan(begin, end - begin), rows, kv, all);
    for (size_t i = begin * kVocab; i < end * kVocab; ++i)
      ASSERT_NEAR(logits[i - begin * kVocab], packed[i],
                  2e-5 * std::max(1.0f, std::abs(packed[i])));
  }
}

TEST(ExpertAdapters, AFolderComesBack) {
  const AdapterSpec spec = Spec({"q_proj", "experts.gate_up_proj", "experts.down_proj"});
  const Weights weights = Adapted(spec);
  const testing::TempFolder folder;
  SaveModelDirectory(weights, folder.path(), "", "base");
  const AdapterConfig config = ReadAdapterConfig(folder.path());
  EXPECT_EQ(config.spec, spec);
  Weights again(Shape(), Device::kCpu, DType::kFloat32);
  again.Initialise(3, 0.2);
  again.AddAdapter(config.spec, 1);
  again.LoadTrained(folder.path());
  EXPECT_EQ(Logits(again), Logits(weights));
  // Nothing but experts.
  const testing::TempFolder alone;
  SaveModelDirectory(Adapted(Spec(kBoth)), alone.path(), "", "base");
  EXPECT_EQ(ReadAdapterConfig(alone.path()).spec, Spec(kBoth));
}

TEST(ExpertAdapters, WhatTheyCannotBeIsSaid) {
  const auto refuses = [](const AdapterSpec& spec, const std::string& says,
                          const ModelShape& shape = Shape()) {
    try {
      const TensorTable base(shape);
      const AdapterTable table(base, spec);
      ADD_FAILURE() << "no error: " << says;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  AdapterSpec spec = Spec(kBoth);
  spec.dropout = 0.1;
  refuses(spec, "set policy.dropout = 0");
  spec = Spec(kBoth);
  spec.rank_pattern = {{"down_proj", 2}};
  refuses(spec, "have one rank and one alpha");
  spec = Spec(kBoth);
  spec.tasks = {"a", "b"};
  refuses(spec, "not weighed by tasks");
  ModelShape other = Shape();
  other.experts.widths = {8, 12};
  refuses(Spec(kBoth), "layers with experts of one width", other);
  refuses(Spec({"layers.7.mlp.experts.down_proj"}), "is no parameter of experts in this model");
  refuses(Spec({"gate_proj"}), "experts.down_proj for the experts of a layer together");
}

}  // namespace
}  // namespace plumb::policy_model
