// Latent attention in whole models: policy_model/layers/latent_stage.h over
// policy_model/families/plumb.cc.
#include "policy_model/layers/latent_stage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/families/model_config.h"
#include "policy_model/speed.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr int32_t kVocab = 31;

ModelShape Shape(const LatentShape& latent) {
  ModelShape s;
  s.family = "plumb";
  s.layers = 3, s.hidden = 32, s.heads = 4, s.kv_heads = 4, s.ffn = 40, s.vocab = kVocab;
  s.max_positions = 96;
  s.latent = latent;
  s.head_dim = latent.head();
  s.eos_tokens = {2};
  return s;
}

// Queries straight and through a vector, values longer and shorter than keys, windows with and
// without positions that all see, stretched positions, experts behind.
std::vector<std::pair<std::string, ModelShape>> Kinds() {
  const LatentShape plain = {.kv_rank = 12, .nope = 8, .rope = 4, .value = 8, .norm_eps = 1e-5};
  LatentShape narrow = plain, wide = plain;
  narrow.query_rank = 10;
  wide.kv_rank = 37;
  wide.nope = 5;
  wide.value = 18;
  ModelShape window = Shape(narrow), global = Shape(plain), yarn = Shape(narrow),
             experts = Shape(narrow);
  window.window = 6;
  global.window = 6;
  global.global_every = 5;
  yarn.rope = {.kind = RopeKind::kYarn,
               .factor = 4,
               .original_positions = 16,
               .mscale = 1,
               .mscale_all_dim = 0.7};
  experts.experts = {.count = 6,
                     .widths = {24},
                     .per_token = 2,
                     .dense = {1, 0, 0},
                     .sigmoid = true,
                     .bias = true,
                     .shared_ffn = 20};
  return {{"plain", Shape(plain)}, {"narrow", Shape(narrow)}, {"wide", Shape(wide)},
          {"window", window},      {"global", global},        {"yarn", yarn},
          {"experts", experts}};
}

Weights Draw(const ModelShape& shape, DType dtype = DType::kFloat32) {
  SetThreads(1);
  Weights weights(shape, Device::kCpu, dtype);
  weights.Initialise(11, 0.2);
  if (dtype != DType::kFloat32) return weights;
  RandomStream random(5, 5);
  for (const TensorEntry& e : weights.table().entries()) {
    if (e.name.find("norm") == std::string::npos) continue;
    for (int64_t i = 0; i < e.elements; ++i)
      weights.flat().f32()[e.offset + i] += 0.3f * random.NextNormal();
  }
  return weights;
}

std::vector<int32_t> RandomTokens(size_t n, uint64_t seed) {
  RandomStream random(seed, 1);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
  return tokens;
}

PackedBatch BatchOf(std::initializer_list<size_t> lengths, uint64_t seed = 3) {
  PackedBatch batch;
  batch.Clear();
  for (const size_t n : lengths) {
    const auto tokens = RandomTokens(n, seed++);
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  return batch;
}

// Two answers to one prompt, whose first tokens are laid down once or twice.
PackedBatch TwoAnswers(bool shared) {
  const auto prompt = RandomTokens(9, 1);
  PackedBatch batch;
  batch.Clear();
  if (shared) batch.AppendPrefix(std::span(prompt).first(8));
  for (const size_t length : {5u, 8u}) {
    std::vector<int32_t> all = prompt;
    for (const int32_t token : RandomTokens(length, length)) all.push_back(token);
    std::vector<uint8_t> mask(all.size(), 0);
    std::fill(mask.begin() + 9, mask.end(), 1);
    batch.Append(all, mask, shared ? 8 : 0);
  }
  return batch;
}

double Objective(Transformer& model, const Weights& weights, const PackedBatch& batch,
                 std::span<const float> g) {
  std::vector<float> logprob(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, true, logprob, {});
  double value = 0;
  for (size_t i = 0; i < g.size(); ++i)
    value += static_cast<double>(g[i]) * static_cast<double>(logprob[i]);
  return value;
}

// Along each tensor's gradient, whose length the slope has to be.
void ExpectGradients(const std::string& kind, Weights& weights, ParameterSet& set,
                     PackedBatch batch) {
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  RandomStream random(4, 2);
  std::vector<float> g;
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  Objective(model, weights, batch, g);
  batch.experts.assign(model.experts().begin(), model.experts().end());
  FlatBuffer grad(Device::kCpu, DType::kFloat32, set.flat.elements());
  FlatBuffer* const of_adapter = &grad;
  Gradients into;
  if (set.adapter) into.adapters = std::span(&of_adapter, 1);
  else into.base = &grad;
  model.Backward(weights, batch, g, {}, into);
  for (const TensorEntry& e : set.table->entries()) {
    float* at = set.flat.f32() + e.offset;
    const std::vector<float> keep(at, at + e.elements);
    double norm = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      norm += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
    if (norm == 0) {
      EXPECT_TRUE(e.name.ends_with("router_bias")) << kind << " " << e.name;
      continue;
    }
    const double h = 1e-3 / std::sqrt(norm);
    double value[2];
    for (int side = 0; side < 2; ++side) {
      for (int64_t i = 0; i < e.elements; ++i) {
        at[i] = keep[static_cast<size_t>(i)] +
                static_cast<float>((side ? -h : h) * static_cast<double>(grad.f32()[e.offset + i]));
      }
      value[side] = Objective(model, weights, batch, g);
    }
    std::copy(keep.begin(), keep.end(), at);
    // float log-probs of 37 tokens over 2 h
    EXPECT_NEAR((value[0] - value[1]) / (2 * h), norm, 0.01 * norm + 3e-5 / h)
        << kind << " " << e.name;
  }
}

TEST(LatentStageTest, GradientsAreThoseOfFiniteDifferences) {
  for (const auto& [kind, shape] : Kinds()) {
    Weights weights = Draw(shape);
    ExpectGradients(kind, weights, weights.base(), BatchOf({13, 3, 21}));
    ExpectGradients(kind + " behind a prefix", weights, weights.base(), TwoAnswers(true));
  }
}

TEST(LatentStageTest, GradientsOfAdaptersAreThoseOfFiniteDifferences) {
  for (const auto& [kind, shape] : Kinds()) {
    Weights weights = Draw(shape);
    weights.AddAdapter({.rank = 3, .alpha = 5}, 5);
    ParameterSet& set = *weights.adapters()[0];
    RandomStream random(9, 9);
    int64_t latent = 0;
    for (const TensorEntry& e : set.table->entries()) {
      latent += e.name.find("kv_a_proj_with_mqa.lora_B") != std::string::npos;
      EXPECT_EQ(e.name.find("kv_b_proj"), std::string::npos) << e.name;
      if (!e.name.ends_with("lora_B")) continue;
      for (int64_t i = 0; i < e.elements; ++i)
        set.flat.f32()[e.offset + i] = 0.1f * random.NextNormal();
    }
    EXPECT_EQ(latent, 3);
    ExpectGradients(kind, weights, set, BatchOf({13, 21}));
  }
}

TEST(LatentStageTest, AnAdapterOfWhatTheLatentBecomesIsRefusedByName) {
  Weights weights = Draw(Kinds()[0].second);
  try {
    weights.AddAdapter({.targets = {"kv_b_proj"}}, 5);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("kv_b_proj, which has no adapter in a model with latent "
                                         "attention: there are down_proj, gate_proj, "
                                         "kv_a_proj_with_mqa, o_proj, q_proj, up_proj"),
              std::string::npos)
        << e.what();
  }
}

// Rows of one or several sequences through pages, page tables of their own.
class Pages {
 public:
  Pages(const ModelShape& shape, int32_t slots)
      : kv_{.dtype = DType::kFloat32,
            .layers = static_cast<int32_t>(shape.layers),
            .num_pages = 8 * slots,
            .page_tokens = 4,
            .kv_heads = static_cast<int32_t>(shape.cache_heads()),
            .head_dim = static_cast<int32_t>(shape.cache_dim()),
            .keys_only = true},
        memory_(static_cast<size_t>(kv_.bytes() / 4), NAN),
        table_(static_cast<size_t>(8 * slots)) {
    kv_.pages = memory_.data();
    std::iota(table_.begin(), table_.end(), 0);
  }
  struct Row {
    int32_t slot, position, token;
  };
  std::vector<float> Step(Transformer& model, const Weights& weights,
                          const std::vector<Row>& rows) {
    std::vector<int32_t> slot, position, token, all;
    for (const Row& r : rows) {
      slot.push_back(r.slot), position.push_back(r.position), token.push_back(r.token);
      all.push_back(static_cast<int32_t>(all.size()));
    }
    const kernels::PagedRows paged{static_cast<int32_t>(rows.size()), slot.data(), position.data(),
                                   table_.data(), 8};
    const float* logits = model.ForwardPaged(weights, token, paged, kv_, all);
    return {logits, logits + rows.size() * static_cast<size_t>(kVocab)};
  }

 private:
  kernels::PagedKv kv_;
  std::vector<float> memory_;
  std::vector<int32_t> table_;
};

// The absorbed form against the plain one, and its rows against themselves.
TEST(LatentStageTest, PagedStepsAreThePackedForwardAndARowIsTheSameInAnyBatch) {
  for (const auto& [kind, shape] : Kinds()) {
    const Weights weights = Draw(shape);
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    constexpr int kLength = 17, kSlots = 9;
    std::vector<std::vector<int32_t>> tokens;
    for (uint64_t s = 0; s < kSlots; ++s) tokens.push_back(RandomTokens(kLength, 20 + s));
    PackedBatch batch;
    batch.Clear();
    batch.Append(tokens[0], std::vector<uint8_t>(kLength, 1));
    std::vector<float> packed(batch.rows.size() * kVocab);
    model.Logits(weights, batch, packed);
    Pages alone(shape, 1), together(shape, kSlots), at_once(shape, 1);
    std::vector<Pages::Row> prompt;
    for (int32_t i = 0; i < kLength; ++i)
      prompt.push_back({0, i, tokens[0][static_cast<size_t>(i)]});
    const auto whole = at_once.Step(model, weights, prompt);
    for (int32_t i = 0; i + 1 < kLength; ++i) {
      const auto one = alone.Step(model, weights, {{0, i, tokens[0][static_cast<size_t>(i)]}});
      std::vector<Pages::Row> rows;
      for (int32_t s = kSlots - 1; s >= 0; --s)
        rows.push_back({s, i, tokens[static_cast<size_t>(s)][static_cast<size_t>(i)]});
      const auto many = together.Step(model, weights, rows);
      EXPECT_EQ(0, std::memcmp(one.data(), many.data() + (kSlots - 1) * kVocab, 4 * kVocab))
          << kind << " among others, position " << i;
      EXPECT_EQ(0, std::memcmp(one.data(), whole.data() + i * kVocab, 4 * kVocab))
          << kind << " as a prompt, position " << i;
      for (size_t j = 0; j < kVocab; ++j) {
        const double want = static_cast<double>(packed[static_cast<size_t>(i) * kVocab + j]);
        // Two sums of up to 37 and 40 products where the plain form has one, through 3 layers:
        // 2^-24 times the root of 77, 3 and 4 for the sizes of what is added, and as much again.
        ASSERT_NEAR(one[j], want, 2e-5 * std::max(1.0, std::abs(want))) << kind << " " << i;
      }
    }
  }
}

TEST(LatentStageTest, WhatSequencesBeginWithIsComputedOnceWithTheSameResults) {
  for (const auto& [kind, shape] : Kinds()) {
    const Weights weights = Draw(shape);
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    const PackedBatch shared = TwoAnswers(true), apart = TwoAnswers(false);
    std::vector<float> want(apart.rows.size()), got(shared.rows.size());
    model.Forward(weights, apart, {.entropy = false}, false, want, {});
    model.Forward(weights, shared, {.entropy = false}, false, got, {});
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(want[i], got[i], 2e-5) << kind;
  }
}

TEST(LatentStageTest, FoldersHoldEveryKindAndComeBackByteForByte) {
  for (const auto& [kind, shape] : Kinds()) {
    const Weights weights = Draw(shape);
    const testing::TempFolder first, second;
    SaveModelDirectory(weights, first.path(), "");
    EXPECT_EQ(ReadModelConfig(first.path()), shape) << kind;
    Weights again(shape, Device::kCpu, DType::kFloat32);
    again.Load(first.path());
    SaveModelDirectory(again, second.path(), "");
    for (const char* name : {"config.json", "model.safetensors"}) {
      EXPECT_EQ(RealFileSystem().ReadFile(first / name, 1 << 24),
                RealFileSystem().ReadFile(second / name, 1 << 24))
          << kind << " " << name;
    }
  }
}

TEST(LatentStageTest, LayersComputedAgainHaveTheSameGradients) {
  for (const auto& [kind, shape] : Kinds()) {
    const Weights weights = Draw(shape);
    const PackedBatch batch = BatchOf({13, 21});
    const std::vector<float> g(batch.rows.size(), 0.5f);
    std::vector<float> kept, again;
    for (const bool recompute : {false, true}) {
      Transformer model(shape, Device::kCpu, DType::kFloat32);
      model.RecomputeLayers(recompute);
      Objective(model, weights, batch, g);
      FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
      model.Backward(weights, batch, g, {}, grad);
      (recompute ? again : kept).assign(grad.f32(), grad.f32() + grad.elements());
    }
    EXPECT_EQ(kept, again) << kind;
  }
}

TEST(LatentStageTest, Bfloat16IsNearFloat32) {
  for (const auto& [kind, shape] : Kinds()) {
    if (shape.experts.count > 0) continue;  // another choice is another function
    const Weights rounded = Draw(shape, DType::kBFloat16);
    Weights exact(shape, Device::kCpu, DType::kFloat32);
    ConvertToFloat(rounded.flat().data(), DType::kBFloat16,
                   std::span(exact.flat().f32(), static_cast<size_t>(exact.flat().elements())));
    const PackedBatch batch = BatchOf({13, 21});
    std::vector<float> want(batch.rows.size()), got(batch.rows.size());
    Transformer f(shape, Device::kCpu, DType::kFloat32), b(shape, Device::kCpu, DType::kBFloat16);
    f.Forward(exact, batch, {.entropy = false}, false, want, {});
    b.Forward(rounded, batch, {.entropy = false}, false, got, {});
    double squares = 0;
    for (size_t i = 0; i < want.size(); ++i)
      squares += std::pow(static_cast<double>(want[i] - got[i]), 2);
    EXPECT_LE(std::sqrt(squares / static_cast<double>(want.size())), 0.06) << kind;
  }
}

TEST(LatentStageTest, ProductsAreCountedAsTheTableHasThem) {
  for (const auto& [kind, shape] : Kinds()) {
    const TensorTable table(shape);
    int64_t products = 0;
    for (const TensorEntry& e : table.entries()) {
      if (e.shape.size() == 2 && e.name != "embedding") products += e.elements;
    }
    products += shape.hidden * shape.vocab;  // the head, which is the embedding
    if (shape.experts.count > 0) products -= 2 * 3 * shape.hidden * 24 * 4;  // 4 of 6 are idle
    EXPECT_EQ(ParametersInProducts(shape), products) << kind;
  }
}

TEST(LatentStageTest, ShapesThatAreNoneAreRefused) {
  const ModelShape good = Kinds()[1].second;
  const auto refused = [&](const std::string& says, const auto& change) {
    ModelShape bad = good;
    change(bad);
    try {
      Validate(bad, "here");
      ADD_FAILURE() << "no error about " << says;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  refused("has to be even", [](ModelShape& s) { s.latent.rope = 3; });
  refused("a rank of -1", [](ModelShape& s) { s.latent.query_rank = -1; });
  refused("0 elements", [](ModelShape& s) { s.latent.value = 0; });
  refused("every head has keys", [](ModelShape& s) { s.kv_heads = 2; });
  refused("every head has keys", [](ModelShape& s) { s.head_dim = 8; });
  refused("the eps", [](ModelShape& s) { s.latent.norm_eps = 0; });
  refused("partial_rotary_factor", [](ModelShape& s) { s.rotated_share = 0.5; });
}

}  // namespace
}  // namespace plumb::policy_model
