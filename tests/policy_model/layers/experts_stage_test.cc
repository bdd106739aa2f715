// Mixtures of experts in whole models: policy_model/layers/experts_stage.h and routing.h over
// policy_model/families/plumb.cc.
#include "policy_model/layers/experts_stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/families/model_config.h"
#include "policy_model/layers/routing.h"
#include "policy_model/speed.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr int32_t kVocab = 31;

ModelShape Shape(const ExpertsShape& experts) {
  return {.family = "plumb",
          .layers = 3,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 40,
          .vocab = kVocab,
          .max_positions = 96,
          .tied = true,
          .experts = experts,
          .eos_tokens = {2}};
}

// Every option in some of them.
std::vector<std::pair<std::string, ExpertsShape>> Kinds() {
  const ExpertsShape plain = {.count = 6, .widths = {24}, .per_token = 2};
  ExpertsShape raw = plain, sigmoid = plain, grouped = plain, shared = plain, gated = plain,
               mixed = plain;
  raw.renormalize = false;
  raw.temperature = 0.7;
  sigmoid.sigmoid = true;
  sigmoid.bias = true;
  sigmoid.temperature = 1.5;
  grouped.sigmoid = true;
  grouped.groups = 3;
  grouped.groups_per_token = 2;
  grouped.renormalize = false;
  shared.shared_ffn = 20;
  shared.dense = {1, 0, 0};
  gated.shared_ffn = 20;
  gated.shared_gate = true;
  mixed.widths = {8, 24, 16};
  mixed.per_token = 3;
  mixed.dense = {0, 1, 0};
  return {{"plain", plain},   {"raw", raw},     {"sigmoid", sigmoid}, {"grouped", grouped},
          {"shared", shared}, {"gated", gated}, {"mixed", mixed}};
}

Weights Draw(const ExpertsShape& experts, DType dtype = DType::kFloat32) {
  Weights weights(Shape(experts), Device::kCpu, dtype);
  weights.Initialise(11, 0.25);
  if (dtype != DType::kFloat32) return weights;
  RandomStream random(5, 5);  // biases that decide something
  for (const TensorEntry& e : weights.table().entries()) {
    if (!e.name.ends_with("router_bias")) continue;
    std::vector<float> bias(static_cast<size_t>(e.elements / kExactParts));
    for (float& b : bias) b = 0.3f * random.NextNormal();
    SplitExact(bias, std::span(weights.flat().f32() + e.offset, static_cast<size_t>(e.elements)));
  }
  return weights;
}

std::vector<int32_t> RandomTokens(int n, uint64_t seed) {
  RandomStream random(seed, 1);
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
  return tokens;
}

PackedBatch BatchOf(std::initializer_list<int> lengths, uint64_t seed = 3) {
  PackedBatch batch;
  batch.Clear();
  for (const int n : lengths) {
    const auto tokens = RandomTokens(n, seed++);
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  return batch;
}

// The objective of a pass that a backward can follow: log-probs by `g`, and the router's losses.
double Objective(Transformer& model, const Weights& weights, const PackedBatch& batch,
                 std::span<const float> g, const RoutingOptions& routing = {}) {
  std::vector<float> logprob(batch.rows.size()), entropy(batch.rows.size());
  model.TakeLoad();
  model.SetRoutingPass(7);
  model.Forward(weights, batch, {}, true, logprob, entropy);
  double value = 0;
  for (size_t i = 0; i < g.size(); ++i)
    value += static_cast<double>(g[i]) * static_cast<double>(logprob[i]);
  const auto load = model.TakeLoad();
  for (const LayerLoad& layer : load) {
    value += (routing.aux_coef * layer.aux + routing.z_coef * layer.z) /
             static_cast<double>(layer.rows) / static_cast<double>(load.size());
  }
  return value;
}

void ExpectGradients(const std::string& kind, const ExpertsShape& experts,
                     const RoutingOptions& routing) {
  Weights weights = Draw(experts);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  model.SetRouting(routing);
  PackedBatch batch = BatchOf({13, 3, 21});
  RandomStream random(4, 2);
  std::vector<float> g;
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  const double middle = Objective(model, weights, batch, g, routing);
  // The choice is no part of the gradient: it stays as it is.
  batch.experts.assign(model.experts().begin(), model.experts().end());
  FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g, {}, grad);
  int with_gradient = 0, steps = 0;
  for (const TensorEntry& e : weights.table().entries()) {
    float* at = weights.flat().f32() + e.offset;
    const std::vector<float> keep(at, at + e.elements);
    double norm = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      norm += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
    if (e.name.ends_with("router_bias")) {
      EXPECT_EQ(norm, 0) << "the balancing bias is outside the gradient";
      continue;
    }
    if (norm == 0) continue;  // an expert without tokens
    ++with_gradient;
    const double h = 1e-3 / std::sqrt(norm);
    double value[2];
    for (int side = 0; side < 2; ++side) {
      for (int64_t i = 0; i < e.elements; ++i) {
        at[i] = keep[static_cast<size_t>(i)] +
                static_cast<float>((side ? -h : h) * static_cast<double>(grad.f32()[e.offset + i]));
      }
      value[side] = Objective(model, weights, batch, g, routing);
    }
    std::copy(keep.begin(), keep.end(), at);
    // Under a capacity another token may be dropped on one side: a step, not a slope.
    if (routing.capacity > 0 &&
        std::abs(value[0] + value[1] - 2 * middle) > 0.1 * std::abs(value[0] - value[1]) + 1e-4) {
      ++steps;
      continue;
    }
    EXPECT_NEAR((value[0] - value[1]) / (2 * h), norm, 0.01 * norm + 3e-5 / h)
        << kind << " " << e.name;
  }
  EXPECT_GE(with_gradient, 20) << kind;
  EXPECT_LE(steps, with_gradient / 2) << kind;
}

TEST(ExpertsStageTest, GradientsAreThoseOfFiniteDifferences) {
  for (const auto& [kind, experts] : Kinds()) ExpectGradients(kind, experts, {});
}

TEST(ExpertsStageTest, GradientsOfTheRoutersLossesAreThoseOfFiniteDifferences) {
  for (const auto& [kind, experts] : Kinds())
    ExpectGradients(kind, experts, {.aux_coef = 3, .z_coef = 0.5});
}

TEST(ExpertsStageTest, GradientsUnderACapacityAreThoseOfFiniteDifferences) {
  for (const auto& [kind, experts] : Kinds())
    ExpectGradients(kind, experts,
                    {.aux_coef = 1, .capacity = 0.8, .capacity_noise = 0.3, .seed = 3});
}

// Rows of one or several sequences through pages: [rows, V] logits, page tables of their own.
class Pages {
 public:
  Pages(const ModelShape& shape, int32_t slots)
      : slots_(slots),
        kv_{.dtype = DType::kFloat32,
            .layers = static_cast<int32_t>(shape.layers),
            .num_pages = 8 * slots,
            .page_tokens = 4,
            .kv_heads = static_cast<int32_t>(shape.kv_heads),
            .head_dim = static_cast<int32_t>(shape.head_dim)},
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
  const int32_t slots_;
  kernels::PagedKv kv_;
  std::vector<float> memory_;
  std::vector<int32_t> table_;
};

TEST(ExpertsStageTest, PagedStepsAreThePackedForwardAndARowIsTheSameInAnyBatch) {
  for (const auto& [kind, experts] : Kinds()) {
    const Weights weights = Draw(experts);
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    constexpr int kLength = 17, kSlots = 9;
    std::vector<std::vector<int32_t>> tokens;
    for (uint64_t s = 0; s < kSlots; ++s) tokens.push_back(RandomTokens(kLength, 20 + s));
    PackedBatch batch;
    batch.Clear();
    batch.Append(tokens[0], std::vector<uint8_t>(kLength, 1));
    std::vector<float> packed(batch.rows.size() * kVocab);
    model.Logits(weights, batch, packed);
    Pages alone(weights.shape(), 1), together(weights.shape(), kSlots), at_once(weights.shape(), 1);
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
        ASSERT_NEAR(one[j], want, 2e-5 * std::max(1.0, std::abs(want))) << kind << " " << i;
      }
    }
  }
}

TEST(ExpertsStageTest, LoadIsCountedInPassesThatABackwardFollows) {
  const ExpertsShape experts = {.count = 6, .widths = {24}, .per_token = 2, .dense = {0, 1, 0}};
  const Weights weights = Draw(experts);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = BatchOf({13, 3, 21});
  std::vector<float> logprob(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
  for (const LayerLoad& layer : model.TakeLoad()) EXPECT_EQ(layer.rows, 0);
  model.Forward(weights, batch, {.entropy = false}, true, logprob, {});
  model.Forward(weights, batch, {.entropy = false}, true, logprob, {});
  const auto load = model.TakeLoad();
  ASSERT_EQ(load.size(), 2u);
  EXPECT_EQ(load[0].layer, 0);
  EXPECT_EQ(load[1].layer, 2);
  for (const LayerLoad& layer : load) {
    EXPECT_EQ(layer.rows, 2 * batch.size());
    EXPECT_EQ(std::accumulate(layer.tokens.begin(), layer.tokens.end(), int64_t{0}),
              2 * 2 * batch.size());
    EXPECT_EQ(layer.dropped, 0);
    EXPECT_GT(layer.entropy / static_cast<double>(layer.rows), 0.2);
    EXPECT_LT(layer.entropy / static_cast<double>(layer.rows), std::log(6.0) + 1e-6);
    EXPECT_GE(layer.MaxOverMean(), 1);
    EXPECT_GT(layer.aux / static_cast<double>(layer.rows), 1.5) << "two experts a token";
  }
  for (const LayerLoad& layer : model.TakeLoad()) EXPECT_EQ(layer.rows, 0) << "taken";
}

TEST(ExpertsStageTest, ACapacityDropsInTrainingAloneAndItsNoiseHasAnAddress) {
  const ExpertsShape experts = {.count = 6, .widths = {24}, .per_token = 2};
  const Weights weights = Draw(experts);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = BatchOf({13, 3, 21});
  const auto logprobs = [&](const RoutingOptions& routing, bool keep, uint64_t pass = 1) {
    model.SetRouting(routing);
    model.SetRoutingPass(pass);
    model.TakeLoad();
    std::vector<float> out(batch.rows.size());
    model.Forward(weights, batch, {.entropy = false}, keep, out, {});
    return out;
  };
  const auto free = logprobs({}, true);
  const RoutingOptions tight = {.capacity = 0.5};
  EXPECT_EQ(logprobs(tight, false), free) << "scoring drops nothing";
  EXPECT_NE(logprobs(tight, true), free);
  // Half of an equal load each: at least half of all are dropped.
  for (const LayerLoad& layer : model.TakeLoad()) {
    EXPECT_GE(layer.dropped, batch.size());
    EXPECT_LT(layer.dropped, 2 * batch.size());
  }
  EXPECT_EQ(logprobs({.capacity = 6}, true), free) << "room for everything";
  const RoutingOptions noisy = {.capacity = 0.3, .capacity_noise = 0.9, .seed = 5};
  EXPECT_EQ(logprobs(noisy, true, 4), logprobs(noisy, true, 4));
  EXPECT_NE(logprobs(noisy, true, 4), logprobs(noisy, true, 5));
}

TEST(ExpertsStageTest, FoldersHoldEveryKindAndItsConfig) {
  for (const auto& [kind, experts] : Kinds()) {
    const Weights weights = Draw(experts);
    const testing::TempFolder folder;
    SaveModelDirectory(weights, folder.path(), "");
    const ModelShape shape = ReadModelConfig(folder.path());
    EXPECT_EQ(shape, weights.shape()) << kind;
    Weights again(shape, Device::kCpu, DType::kFloat32);
    again.Load(folder.path());
    EXPECT_EQ(again.ComputeDigest(), weights.ComputeDigest()) << kind;
  }
}

TEST(ExpertsStageTest, Bfloat16IsNearFloat32) {
  for (const auto& [kind, experts] : Kinds()) {
    const Weights rounded = Draw(experts, DType::kBFloat16);
    Weights exact(Shape(experts), Device::kCpu, DType::kFloat32);
    ConvertToFloat(rounded.flat().data(), DType::kBFloat16,
                   std::span(exact.flat().f32(), static_cast<size_t>(exact.flat().elements())));
    const PackedBatch batch = BatchOf({13, 21});
    std::vector<float> want(batch.rows.size()), got(batch.rows.size());
    Transformer f(exact.shape(), Device::kCpu, DType::kFloat32),
        b(exact.shape(), Device::kCpu, DType::kBFloat16);
    f.Forward(exact, batch, {.entropy = false}, false, want, {});
    b.Forward(rounded, batch, {.entropy = false}, true, got, {});
    double squares = 0;
    for (size_t i = 0; i < got.size(); ++i)
      squares += std::pow(static_cast<double>(got[i] - want[i]), 2);
    EXPECT_LT(std::sqrt(squares / static_cast<double>(got.size())), 0.1) << kind;
    FlatBuffer grad(Device::kCpu, DType::kFloat32, rounded.flat().elements());
    b.Backward(rounded, batch, std::vector<float>(got.size(), 1.0f), {}, grad);
    for (int64_t i = 0; i < grad.elements(); ++i) ASSERT_TRUE(std::isfinite(grad.f32()[i])) << i;
  }
}

TEST(ExpertsStageTest, AdaptersGoWithAttentionAndAreRefusedOnExpertsByName) {
  const ExpertsShape experts = {
      .count = 6, .widths = {24}, .per_token = 2, .dense = {1, 0, 0}, .shared_ffn = 8};
  Weights weights = Draw(experts);
  for (const char* target : {"gate_proj", "experts", "gate", "mlp.experts.3.down_proj",
                             "shared_expert", "layers.0.mlp.down_proj"}) {
    try {
      weights.AddAdapter({.rank = 2, .targets = {target}}, 1);
      ADD_FAILURE() << target;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(e.what()).find(std::string("'") + target + "' names model.layers."),
                std::string::npos)
          << e.what();
    }
  }
  EXPECT_THROW(weights.AddAdapter({.targets = {"nothing"}}, 1), Error);
  weights = Draw(experts);
  weights.AddAdapter({.rank = 2}, 1);
  std::set<std::string> names;
  for (const TensorEntry& e : weights.adapters()[0]->table->entries())
    names.insert(e.name.substr(e.name.find('.', 7) + 1));
  EXPECT_EQ(names, (std::set<std::string>{"q_proj.lora_A", "q_proj.lora_B", "k_proj.lora_A",
                                          "k_proj.lora_B", "v_proj.lora_A", "v_proj.lora_B",
                                          "o_proj.lora_A", "o_proj.lora_B"}));
  EXPECT_EQ(weights.adapters()[0]->adapter->spec().targets,
            (std::vector<std::string>{"k_proj", "o_proj", "q_proj", "v_proj"}));
}

TEST(ExpertsStageTest, ActiveParametersAreThoseThatATokenGoesThrough) {
  const ExpertsShape experts = {.count = 6,
                                .widths = {8, 16},
                                .per_token = 2,
                                .dense = {1, 0, 0},
                                .shared_ffn = 5,
                                .shared_gate = true};
  const TensorTable table(Shape(experts));
  // Two experts of the mean width 12 instead of six, in two layers of hidden size 32.
  EXPECT_EQ(table.active_parameters(), table.parameters() - 2 * 3 * 32 * (6 - 2) * 12);
  const TensorTable dense(Shape({}));
  EXPECT_EQ(dense.active_parameters(), dense.parameters());
  // Without norms, which are no products.
  EXPECT_EQ(ParametersInProducts(table.shape()), table.active_parameters() - (2 * 3 + 1) * 32);
}

TEST(ExpertsStageTest, ShapesThatCannotBeAreRefused) {
  const ExpertsShape good = {.count = 6, .widths = {24}, .per_token = 2};
  Validate(Shape(good), "here");
  const auto refused = [&](auto change) {
    ExpertsShape e = good;
    change(e);
    EXPECT_THROW(Validate(Shape(e), "here"), Error);
  };
  refused([](ExpertsShape& e) { e.count = 2000; });
  refused([](ExpertsShape& e) { e.per_token = 7; });
  refused([](ExpertsShape& e) { e.per_token = 0; });
  refused([](ExpertsShape& e) { e.widths = {}; });
  refused([](ExpertsShape& e) { e.widths = {4, 0}; });
  refused([](ExpertsShape& e) { e.groups = 4; });
  refused([](ExpertsShape& e) { e.groups = 6; });  // one group of one holds no two experts
  refused([](ExpertsShape& e) { e.groups = 3, e.groups_per_token = 4; });
  refused([](ExpertsShape& e) { e.temperature = 0; });
  refused([](ExpertsShape& e) { e.dense = {0, 1}; });
}

}  // namespace
}  // namespace plumb::policy_model
