// Low-rank adapters on a base that stays as it is: policy_model/families/adapter_table.h,
// layers/linear.h, parameter_set.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/layers/linear.h"
#include "policy_model/memory/parameter_set.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

// Heads of which q and k differ in rows, biases, and (phi3) merged parts that are one module.
ModelShape Shape(const std::string& family) {
  return {.family = family,
          .layers = 2,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 40,
          .vocab = 31,
          .max_positions = 96,
          .tied = true,
          .attention_bias = family == "qwen2",
          .eos_tokens = {2}};
}

Weights Base(const std::string& family) {
  Weights weights(Shape(family), Device::kCpu, DType::kFloat32);
  weights.Initialise(11, 0.15);
  return weights;
}

// With numbers in B, so that every part of the adapter matters.
Weights Adapted(const std::string& family, const AdapterSpec& spec) {
  Weights weights = Base(family);
  weights.AddAdapter(spec, 5);
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const TensorEntry& e : set.table->entries()) {
    if (!e.name.ends_with("lora_B")) continue;
    for (int64_t i = 0; i < e.elements; ++i)
      set.flat.f32()[e.offset + i] = 0.1f * random.NextNormal();
  }
  return weights;
}

// A model without adapters whose weights are W + scale B A.
Weights Merged(const Weights& adapted) {
  Weights out = Base(adapted.shape().family);
  const ParameterSet& set = *adapted.adapters()[0];
  for (const TensorEntry& e : out.table().entries()) {
    const auto* parts = set.adapter->Of(e.offset);
    if (!parts) continue;
    const int64_t columns = e.columns();
    for (const LowRank& part : *parts) {
      const int64_t rank = part.rank;
      for (int64_t r = 0; r < part.rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          double sum = 0;
          for (int64_t k = 0; k < rank; ++k) {
            sum += static_cast<double>(set.flat.f32()[part.b + r * rank + k]) *
                   static_cast<double>(set.flat.f32()[part.a + k * columns + c]);
          }
          out.flat().f32()[e.offset + (part.row_begin + r) * columns + c] +=
              static_cast<float>(static_cast<double>(part.scale) * sum);
        }
      }
    }
  }
  return out;
}

struct Batch {
  PackedBatch batch;
  std::vector<float> g_logprob, g_entropy;
  explicit Batch(uint64_t seed = 3) {
    RandomStream random(seed, 1);
    batch.Clear();
    for (const int n : {13, 3, 21}) {
      std::vector<int32_t> tokens;
      for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(31)));
      batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    }
    for (size_t r = 0; r < batch.rows.size(); ++r) {
      g_logprob.push_back(random.NextNormal());
      g_entropy.push_back(0.3f * random.NextNormal());
    }
  }
  std::optional<uint64_t> dropout = std::nullopt;
  std::vector<float> Forward(Transformer& model, const Weights& weights, bool keep = false,
                             double* value = nullptr) const {
    std::vector<float> logprob(batch.rows.size()), entropy(batch.rows.size());
    model.Forward(weights, batch, {.temperature = 0.9f, .dropout = dropout}, keep, logprob,
                  entropy);
    for (size_t i = 0; value && i < logprob.size(); ++i) {
      *value += static_cast<double>(g_logprob[i]) * static_cast<double>(logprob[i]) +
                static_cast<double>(g_entropy[i]) * static_cast<double>(entropy[i]);
    }
    return logprob;
  }
};

// The gradient of an adapter alone: no memory for that of the base.
FlatBuffer AdapterGradient(Transformer& model, const Weights& weights, const Batch& b) {
  FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.adapters()[0]->flat.elements());
  FlatBuffer* const adapters[] = {&grad};
  Gradients gradients;
  gradients.adapters = adapters;
  b.Forward(model, weights, true);
  model.Backward(weights, b.batch, b.g_logprob, b.g_entropy, gradients);
  return grad;
}

TEST(AdapterTest, ANewAdapterChangesNothingAndADrawIsTheSameForTheSameSeed) {
  const Weights base = Base("llama");
  Weights weights = Base("llama");
  weights.AddAdapter({.rank = 4}, 5);
  Transformer model(base.shape(), Device::kCpu, DType::kFloat32);
  const Batch b;
  EXPECT_EQ(b.Forward(model, weights), b.Forward(model, base));
  EXPECT_FALSE(weights.base().trained);
  EXPECT_EQ(DigestOf(weights.flat()), base.ComputeDigest());
  EXPECT_NE(weights.ComputeDigest(), base.ComputeDigest());
  Weights again = Base("llama"), other = Base("llama");
  again.AddAdapter({.rank = 4}, 5);
  other.AddAdapter({.rank = 4}, 6);
  EXPECT_EQ(again.ComputeDigest(), weights.ComputeDigest());
  EXPECT_NE(other.ComputeDigest(), weights.ComputeDigest());
  // A within +-1 / sqrt(in), near its edges.
  for (const TensorEntry& e : weights.adapters()[0]->table->entries()) {
    if (!e.name.ends_with("lora_A")) continue;
    float most = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      most = std::max(most, std::abs(weights.adapters()[0]->flat.f32()[e.offset + i]));
    const float bound = 1 / std::sqrt(static_cast<float>(e.columns()));
    EXPECT_LE(most, bound) << e.name;
    EXPECT_GT(most, 0.9f * bound) << e.name;
  }
}

// Plain, and with a rank and a scale of each module's own.
std::vector<AdapterSpec> Specs() {
  return {{.rank = 4, .alpha = 6},
          {.rank = 4,
           .alpha = 6,
           .rslora = true,
           .rank_pattern = {{"layers.0.mlp.down_proj", 7}, {"down_proj|(o|qkv)_proj", 2}},
           .alpha_pattern = {{".*layers\\.1\\..*", 3}}}};
}

TEST(AdapterTest, AddsItsLowRankProductsAndOnlyWhereItIsAskedTo) {
  for (const char* family : {"llama", "qwen2", "phi3"}) {
    for (const AdapterSpec& spec : Specs()) {
      Weights weights = Adapted(family, spec);
      Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
      const Batch b;
      const auto adapted = b.Forward(model, weights), merged = b.Forward(model, Merged(weights)),
                 base = b.Forward(model, Base(family));
      double moved = 0;
      for (size_t i = 0; i < adapted.size(); ++i) {
        EXPECT_NEAR(adapted[i], merged[i], 2e-5) << family;
        moved = std::max(moved, std::abs(static_cast<double>(adapted[i] - base[i])));
      }
      EXPECT_GT(moved, 0.05) << family;
      EXPECT_EQ(b.Forward(model, weights.WithoutAdapters()), base) << family;
    }
  }
  const Weights some = Adapted("llama", {.rank = 4, .targets = {"k_proj", "down_proj"}});
  std::set<std::string> names;
  for (const TensorEntry& e : some.adapters()[0]->table->entries()) names.insert(e.name);
  EXPECT_EQ(names,
            (std::set<std::string>{"layers.0.k_proj.lora_A", "layers.0.k_proj.lora_B",
                                   "layers.0.down_proj.lora_A", "layers.0.down_proj.lora_B",
                                   "layers.1.k_proj.lora_A", "layers.1.k_proj.lora_B",
                                   "layers.1.down_proj.lora_A", "layers.1.down_proj.lora_B"}));
  Weights weights = Base("phi3");
  try {
    weights.AddAdapter({.targets = {"q_proj"}}, 1);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("qkv_proj"), std::string::npos) << e.what();
  }
}

void ExpectGradientsOfFiniteDifferences(const std::string& family, const AdapterSpec& spec,
                                        const Batch& b) {
  Weights weights = Adapted(family, spec);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const FlatBuffer grad = AdapterGradient(model, weights, b);
  ParameterSet& set = *weights.adapters()[0];
  for (const TensorEntry& e : set.table->entries()) {
    float* at = set.flat.f32() + e.offset;
    const std::vector<float> keep(at, at + e.elements);
    double norm = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      norm += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
    ASSERT_GT(norm, 0) << e.name;
    const double h = 3e-3 / std::sqrt(norm);
    double value[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      for (int64_t i = 0; i < e.elements; ++i) {
        at[i] = keep[static_cast<size_t>(i)] +
                static_cast<float>((side ? -h : h) * static_cast<double>(grad.f32()[e.offset + i]));
      }
      b.Forward(model, weights, false, &value[side]);
    }
    std::copy(keep.begin(), keep.end(), at);
    EXPECT_NEAR((value[0] - value[1]) / (2 * h), norm, 0.01 * norm + 4e-5 / h)
        << family << " " << e.name;
  }
}

TEST(AdapterTest, GradientsAreThoseOfFiniteDifferences) {
  for (const char* family : {"llama", "qwen2", "phi3"})
    ExpectGradientsOfFiniteDifferences(family, Specs()[0], Batch());
  ExpectGradientsOfFiniteDifferences("llama", Specs()[1], Batch());
}

TEST(AdapterTest, DropsInTrainingPassesAlone) {
  const AdapterSpec spec = {.rank = 4, .alpha = 6, .dropout = 0.4};
  const Weights weights = Adapted("llama", spec), whole = Adapted("llama", {.rank = 4, .alpha = 6});
  EXPECT_TRUE(weights.Drops());
  EXPECT_FALSE(whole.Drops());
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  Batch b;
  const auto undropped = b.Forward(model, whole);
  EXPECT_EQ(b.Forward(model, weights), undropped);
  b.dropout = 17;
  const auto dropped = b.Forward(model, weights);
  EXPECT_NE(dropped, undropped);
  EXPECT_EQ(b.Forward(model, weights, /*keep=*/true), dropped);
  EXPECT_EQ(b.Forward(model, whole), undropped) << "without a dropout of its own";
  b.dropout = 18;
  EXPECT_NE(b.Forward(model, weights), dropped);
  b.dropout.reset();
  EXPECT_EQ(b.Forward(model, weights), undropped);
}

TEST(AdapterTest, ThatOfADroppingPassIsTheGradientOfWhatItKept) {
  Batch b;
  b.dropout = 17;
  for (const char* family : {"llama", "phi3"})
    ExpectGradientsOfFiniteDifferences(family, {.rank = 4, .alpha = 6, .dropout = 0.4}, b);
}

// A sum of `rank` products in float beside the same in double, and one rounding.
TEST(AdapterTest, MergingAddsTheProductsToTheBase) {
  for (const char* family : {"llama", "qwen2", "phi3"}) {
    for (const AdapterSpec& spec : Specs()) {
      Weights weights = Adapted(family, spec);
      const Weights reference = Merged(weights), base = Base(family);
      Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
      const Batch b;
      const auto unmerged = b.Forward(model, weights);
      weights.Merge();
      EXPECT_EQ(weights.sets().size(), 1u);
      EXPECT_TRUE(weights.base().trained);
      EXPECT_NE(weights.ComputeDigest(), base.ComputeDigest());
      for (int64_t i = 0; i < weights.flat().elements(); ++i) {
        const float want = reference.flat().f32()[i], added = want - base.flat().f32()[i];
        ASSERT_NEAR(weights.flat().f32()[i], want,
                    1.2e-7f * (std::abs(want) + 16 * std::max(0.1f, std::abs(added))));
        if (added == 0) {
          ASSERT_EQ(weights.flat().f32()[i], want);
        }
      }
      const auto merged = b.Forward(model, weights);
      for (size_t i = 0; i < merged.size(); ++i) EXPECT_NEAR(merged[i], unmerged[i], 2e-5);
    }
  }
}

TEST(AdapterTest, MergingInBFloat16RoundsOnce) {
  Weights weights(Shape("llama"), Device::kCpu, DType::kBFloat16);
  weights.Initialise(11, 0.15);
  weights.AddAdapter({.rank = 3, .alpha = 6}, 5);
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  auto* adapter = static_cast<BFloat16*>(set.flat.data());
  for (int64_t i = 0; i < set.flat.elements(); ++i)
    adapter[i] = ToBFloat16(0.2f * random.NextNormal());
  const std::shared_ptr<ParameterSet> kept = weights.adapters()[0];
  const auto* flat = static_cast<const BFloat16*>(weights.flat().data());
  const std::vector<BFloat16> before(flat, flat + weights.flat().elements());
  weights.Merge();
  int64_t checked = 0;
  for (const TensorEntry& e : weights.table().entries()) {
    const auto* parts = kept->adapter->Of(e.offset);
    if (!parts) continue;
    for (const LowRank& part : *parts) {
      for (int64_t r = 0; r < part.rows; ++r) {
        for (int64_t c = 0; c < e.columns(); ++c) {
          double want = 0;
          for (int64_t k = 0; k < part.rank; ++k)
            want += static_cast<double>(ToFloat(adapter[part.b + r * part.rank + k])) *
                    static_cast<double>(ToFloat(adapter[part.a + k * e.columns() + c]));
          const auto at = static_cast<size_t>(e.offset + (part.row_begin + r) * e.columns() + c);
          want = static_cast<double>(ToFloat(before[at])) + static_cast<double>(part.scale) * want;
          // half a step of 8 bits, and what float adds to it
          ASSERT_NEAR(static_cast<double>(ToFloat(flat[at])), want, std::abs(want) / 256 + 1e-6)
              << e.name;
          ++checked;
        }
      }
    }
  }
  EXPECT_GT(checked, 10000);
}

TEST(AdapterTest, GradientsFollowFromThoseOfTheMergedWeights) {
  // dB = scale dW A^T and dA = scale B^T dW, with dW of the model whose weights are W + scale B A.
  Weights weights = Adapted("qwen2", {.rank = 4, .alpha = 6});
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const Batch b;
  const FlatBuffer grad = AdapterGradient(model, weights, b);
  const Weights merged = Merged(weights);
  FlatBuffer full(Device::kCpu, DType::kFloat32, merged.flat().elements());
  b.Forward(model, merged, true);
  model.Backward(merged, b.batch, b.g_logprob, b.g_entropy, full);
  const ParameterSet& set = *weights.adapters()[0];
  const int64_t rank = 4;
  int tensors = 0;
  for (const TensorEntry& e : merged.table().entries()) {
    const auto* parts = set.adapter->Of(e.offset);
    if (!parts) continue;
    const int64_t columns = e.columns();
    for (const LowRank& part : *parts) {
      const float* dw = full.f32() + e.offset + part.row_begin * columns;
      const auto scale = static_cast<double>(part.scale);
      const auto check = [&](int64_t offset, int64_t rows, int64_t cols, const auto& want) {
        double diff = 0, norm = 0;
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < cols; ++j) {
            const double w = scale * want(i, j);
            diff += std::pow(static_cast<double>(grad.f32()[offset + i * cols + j]) - w, 2),
                norm += w * w;
          }
        }
        EXPECT_LE(std::sqrt(diff), 2e-5 * std::sqrt(norm)) << e.name;
        ++tensors;
      };
      check(part.b, part.rows, rank, [&](int64_t i, int64_t j) {
        double sum = 0;
        for (int64_t c = 0; c < columns; ++c)
          sum += static_cast<double>(dw[i * columns + c]) *
                 static_cast<double>(set.flat.f32()[part.a + j * columns + c]);
        return sum;
      });
      check(part.a, rank, columns, [&](int64_t i, int64_t j) {
        double sum = 0;
        for (int64_t r = 0; r < part.rows; ++r)
          sum += static_cast<double>(dw[r * columns + j]) *
                 static_cast<double>(set.flat.f32()[part.b + r * rank + i]);
        return sum;
      });
    }
  }
  EXPECT_EQ(tensors, 2 * 2 * 7);  // A and B of seven parts in two layers
}

TEST(AdapterTest, IsWrittenAsPeftWritesItAndReadAgain) {
  const testing::TempFolder folder;
  const Weights weights =
      Adapted("llama", {.rank = 4, .alpha = 6, .targets = {"q_proj", "o_proj"}});
  SaveModelDirectory(weights, folder.path(), "", "models/base");
  std::ifstream in(folder.path() + "/adapter_config.json");
  const Json config = Json::parse(in);
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["lora_alpha"], 6);
  EXPECT_EQ(config["target_modules"], (std::vector<std::string>{"q_proj", "o_proj"}));
  EXPECT_EQ(config["base_model_name_or_path"], "models/base");
  const auto reader = SafetensorsReader::OpenFile(folder.path() + "/adapter_model.safetensors");
  ASSERT_EQ(reader->tensors().size(), 8u);
  const auto& b =
      reader->tensors().at("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
  EXPECT_EQ(b.shape, (std::vector<int64_t>{32, 4}));
  EXPECT_EQ(
      reader->tensors().at("base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight").shape,
      (std::vector<int64_t>{4, 32}));
  EXPECT_FALSE(RealFileSystem().Exists(folder.path() + "/model.safetensors"));

  const AdapterConfig read = ReadAdapterConfig(folder.path());
  EXPECT_EQ(read.spec, weights.adapters()[0]->adapter->spec());
  EXPECT_EQ(read.base_model, "models/base");
  Weights again = Base("llama");
  again.AddAdapter(read.spec, 77);
  EXPECT_NE(again.ComputeDigest(), weights.ComputeDigest());
  again.LoadTrained(folder.path());
  EXPECT_EQ(again.ComputeDigest(), weights.ComputeDigest());
  Weights other = Base("llama");
  other.AddAdapter({.rank = 4, .alpha = 8, .targets = {"q_proj", "o_proj"}}, 1);
  EXPECT_THROW(other.LoadTrained(folder.path()), Error);
  Weights more = Base("llama");
  more.AddAdapter({.rank = 4, .alpha = 6}, 1);
  EXPECT_THROW(more.LoadTrained(folder.path()), Error);
}

TEST(AdapterTest, TargetsMayBePathsOfSingleModules) {
  const Weights weights = Adapted(
      "llama",
      {.rank = 4,
       .alpha = 6,
       .targets = {"layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj", "down_proj"}});
  std::set<std::string> names;
  for (const TensorEntry& e : weights.adapters()[0]->table->entries()) names.insert(e.name);
  EXPECT_EQ(names,
            (std::set<std::string>{"layers.1.q_proj.lora_A", "layers.1.q_proj.lora_B",
                                   "layers.0.down_proj.lora_A", "layers.0.down_proj.lora_B",
                                   "layers.1.down_proj.lora_A", "layers.1.down_proj.lora_B"}));
  Weights base = Base("llama");
  EXPECT_THROW(base.AddAdapter({.targets = {"layers.2.mlp.down_proj"}}, 1), Error);
  EXPECT_THROW(base.AddAdapter({.targets = {"own_proj"}}, 1), Error) << "whole names only";
}

TEST(AdapterTest, PatternsGiveEachModuleItsRankAndScaleTheFirstThatMatches) {
  const auto parts_of = [](const AdapterSpec& spec, const std::string& tensor) {
    const Weights weights = Adapted("llama", spec);
    for (const TensorEntry& e : weights.table().entries()) {
      if (e.name == tensor) return *weights.adapters()[0]->adapter->Of(e.offset);
    }
    return std::vector<LowRank>();
  };
  const AdapterSpec spec = {.rank = 4,
                            .alpha = 8,
                            .rank_pattern = {{"layers.0.self_attn.q_proj", 3}, {"q_proj", 2}},
                            .alpha_pattern = {{"(q|k)_proj", 1}}};
  const auto first = parts_of(spec, "layers.0.qkv"), second = parts_of(spec, "layers.1.qkv");
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].rank, 3);
  EXPECT_EQ(second[0].rank, 2);
  EXPECT_EQ(second[1].rank, 4);
  EXPECT_FLOAT_EQ(first[0].scale, 1.0f / 3);
  EXPECT_FLOAT_EQ(second[0].scale, 1.0f / 2);
  EXPECT_FLOAT_EQ(second[1].scale, 1.0f / 4);
  EXPECT_FLOAT_EQ(second[2].scale, 8.0f / 4);
  AdapterSpec turned = spec;
  std::swap(turned.rank_pattern[0], turned.rank_pattern[1]);
  EXPECT_EQ(parts_of(turned, "layers.0.qkv")[0].rank, 2);
  turned = spec;
  turned.rslora = true;
  EXPECT_FLOAT_EQ(parts_of(turned, "layers.1.qkv")[2].scale, 8.0f / 2);
  EXPECT_FLOAT_EQ(parts_of(turned, "layers.1.qkv")[0].scale, 1.0f / std::sqrt(2.0f));
}

TEST(AdapterTest, PatternsThatMatchNothingAreRefused) {
  for (const auto& [spec, option] :
       {std::pair(AdapterSpec{.rank_pattern = {{"query", 3}}}, "policy.rank_pattern"),
        {AdapterSpec{.targets = {"o_proj"}, .alpha_pattern = {{"q_proj", 3}}},
         "policy.alpha_pattern"},
        {AdapterSpec{.rank_pattern = {{"(?!q)_proj", 3}}}, "policy.rank_pattern"},
        {AdapterSpec{.target_pattern = "q_proj"}, "policy.targets"},
        {AdapterSpec{.target_pattern = ".*query"}, "policy.targets"}}) {
    Weights base = Base("llama");
    try {
      base.AddAdapter(spec, 1);
      ADD_FAILURE() << option;
    } catch (const Error& e) {
      EXPECT_EQ(e.where(), option) << e.what();
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    }
  }
}

TEST(AdapterTest, OneTargetMayBeAPatternOfWholePaths) {
  AdapterSpec spec{.rank = 2};
  SetTargets({"model\\.layers\\.1\\..*(q|down)_proj"}, spec);
  EXPECT_TRUE(spec.targets.empty());
  const Weights weights = Adapted("llama", spec);
  std::set<std::string> names;
  for (const TensorEntry& e : weights.adapters()[0]->table->entries()) names.insert(e.name);
  EXPECT_EQ(names,
            (std::set<std::string>{"layers.1.q_proj.lora_A", "layers.1.q_proj.lora_B",
                                   "layers.1.down_proj.lora_A", "layers.1.down_proj.lora_B"}));
  EXPECT_THROW(SetTargets({"q_proj", ".*down_proj"}, spec), Error);
  SetTargets({"q_proj", "layers.1.mlp.down_proj"}, spec);
  EXPECT_TRUE(spec.target_pattern.empty());
  EXPECT_EQ(spec.targets.size(), 2u);
}

TEST(AdapterTest, WhatPatternsSayIsWrittenInTheirOrderAndReadAgain) {
  const testing::TempFolder folder;
  const AdapterSpec spec = {.rank = 4,
                            .alpha = 6,
                            .targets = {},
                            .target_pattern = ".*_proj",
                            .rslora = true,
                            .dropout = 0.25,
                            .rank_pattern = {{"v_proj", 2}, {"(k|v)_proj", 3}, {"down_proj", 1}},
                            .alpha_pattern = {{"o_proj", 1.5}, {".*layers.0.*", 2}}};
  const Weights weights = Adapted("llama", spec);
  SaveModelDirectory(weights, folder.path(), "", "models/base");
  std::ifstream in(folder.path() + "/adapter_config.json");
  const auto config = nlohmann::ordered_json::parse(in);
  EXPECT_EQ(config["target_modules"], ".*_proj");
  EXPECT_EQ(config["use_rslora"], true);
  EXPECT_EQ(config["lora_dropout"], 0.25);
  EXPECT_EQ(config["rank_pattern"].dump(), R"({"v_proj":2,"(k|v)_proj":3,"down_proj":1})");
  EXPECT_EQ(config["alpha_pattern"].dump(), R"({"o_proj":1.5,".*layers.0.*":2.0})");
  EXPECT_EQ(ReadAdapterConfig(folder.path()).spec, spec);
  Weights again = Base("llama");
  again.AddAdapter(ReadAdapterConfig(folder.path()).spec, 77);
  again.LoadTrained(folder.path());
  EXPECT_EQ(again.ComputeDigest(), weights.ComputeDigest());
  // What was dropped in training changes no function; another scale does.
  AdapterSpec other = spec;
  other.dropout = 0;
  Weights undropped = Base("llama");
  undropped.AddAdapter(other, 1);
  undropped.LoadTrained(folder.path());
  other.rslora = false;
  Weights unscaled = Base("llama");
  unscaled.AddAdapter(other, 1);
  EXPECT_THROW(unscaled.LoadTrained(folder.path()), Error);
}

TEST(AdapterTest, OtherKindsOfAdaptersAreRefused) {
  const testing::TempFolder folder;
  WriteAdapterConfig({}, "base", folder.path());
  const std::string path = folder.path() + "/adapter_config.json";
  std::ifstream in(path);
  const Json plain = Json::parse(in);
  EXPECT_EQ(ReadAdapterConfig(folder.path()).spec, AdapterSpec{});
  Json many = Json::object();
  for (int i = 0; i < 10'000; ++i) many["module" + std::to_string(i)] = 2;
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, Json>>{{"peft_type", "LOHA"},
                                                           {"rank_pattern", many},
                                                           {"use_dora", true},
                                                           {"use_rslora", "yes"},
                                                           {"lora_dropout", 1},
                                                           {"bias", "all"},
                                                           {"rank_pattern", {{"q_proj", 0}}},
                                                           {"rank_pattern", "q_proj"},
                                                           {"alpha_pattern", {{"q_proj", "2"}}},
                                                           {"exclude_modules", {"q_proj"}},
                                                           {"layers_to_transform", {0}},
                                                           {"modules_to_save", {"lm_head"}},
                                                           {"r", 0},
                                                           {"r", 2.5},
                                                           {"lora_alpha", "much"},
                                                           {"target_modules", ""},
                                                           {"target_modules", Json::array()}}) {
    Json changed = plain;
    changed[key] = value;
    RealFileSystem().WriteFileAtomic(path, changed.dump());
    EXPECT_THROW(ReadAdapterConfig(folder.path()), Error) << key << " " << value;
  }
}

TEST(ParameterSetTest, ATwinSharesWhatIsNotTrainedAndOwnsTheRest) {
  const Weights weights = Adapted("llama", {.rank = 4});
  const Weights twin = weights.Twin(), plain = Base("llama").Twin();
  EXPECT_EQ(&twin.flat(), &weights.flat());
  EXPECT_NE(twin.adapters()[0], weights.adapters()[0]);
  EXPECT_EQ(twin.adapters()[0]->table, weights.adapters()[0]->table);
  EXPECT_TRUE(plain.base().trained);
  EXPECT_EQ(weights.WithoutAdapters().sets().size(), 1u);
}

}  // namespace
}  // namespace plumb::policy_model
