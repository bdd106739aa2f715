// Which parameters an optimizer trains, and how fast: TrainingRules of learner/update/optimizer.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/offline/sft.h"
#include "learner/update/checkpoint.h"
#include "learner/update/checkpoint_size.h"
#include "learner/update/optimizer.h"
#include "learner/update/optimizer_file.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::ParameterSet;
using policy_model::TensorEntry;
using policy_model::Weights;

Weights Tiny(DType dtype = DType::kFloat32, const std::string& family = "llama") {
  policy_model::ModelShape shape = TinyShape();
  shape.family = family;
  Weights weights(shape, Device::kCpu, dtype);
  weights.Initialise(3, 0.2);
  return weights;
}

Weights Adapted() {
  Weights weights = Tiny();
  weights.AddAdapter({.rank = 2, .alpha = 8}, 5);
  RandomStream random(9, 9);
  ParameterSet& set = *weights.adapters()[0];
  for (int64_t i = 0; i < set.flat.elements(); ++i) set.flat.f32()[i] += 0.1f * random.NextNormal();
  return weights;
}

// The tensors of a set by name, as bytes.
std::map<std::string, std::vector<std::byte>> Tensors(const ParameterSet& set) {
  std::map<std::string, std::vector<std::byte>> out;
  for (const TensorEntry& e : set.table->entries()) {
    auto& bytes = out[e.name];
    bytes.resize(static_cast<size_t>(e.elements) * ElementSize(set.flat.dtype()));
    set.flat.CopyToHost(bytes, e.offset);
  }
  return out;
}

void Teach(Weights& weights, Optimizer& optimizer, int64_t steps, uint64_t seed = 1) {
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, weights.dtype());
  TrainStep train(transformer, 512);
  configs::SftConfig sft{.steps = steps, .batch = 16, .learning_rate = 0.02, .eval_every = 5};
  RunSft(train, weights, optimizer, sft, seed, RandomDemonstrations(64, seed),
         RandomDemonstrations(16, 2), [](const SftStep&, const SftResult&) { return true; });
}

std::string Refused(const TrainingRules& rules, bool adapter = false) {
  Weights weights = adapter ? Adapted() : Tiny();
  try {
    Optimizer optimizer(weights, {}, rules);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(TrainingRulesTest, WithoutRulesAllOfASetIsOneRun) {
  Weights weights = Tiny(), same = Tiny(), with_factor_one = Tiny();
  Optimizer optimizer(weights, {}), again(same, {}, {.seed = 7}),
      rated(with_factor_one, {}, {.learning_rates = {{"model.", 1}}});
  ASSERT_EQ(optimizer.sets().front().runs.size(), 1u);
  EXPECT_EQ(optimizer.sets().front().runs[0].begin, 0);
  EXPECT_EQ(optimizer.sets().front().runs[0].end, weights.flat().elements());
  EXPECT_EQ(optimizer.grad().elements(), weights.flat().elements());
  Teach(weights, optimizer, 5);
  Teach(same, again, 5);
  Teach(with_factor_one, rated, 5);
  EXPECT_EQ(same.ComputeDigest(), weights.ComputeDigest());
  EXPECT_EQ(with_factor_one.ComputeDigest(), weights.ComputeDigest());
}

TEST(TrainingRulesTest, WhatIsFrozenStaysWhatItIsAndHasNoState) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    // The head, too, for it is the embedding.
    const TrainingRules rules{
        .frozen = {"embed_tokens", "layers\\.0\\..*(q|k|v)_proj", "layers.1.input_layernorm"}};
    Weights weights = Tiny(dtype);
    Optimizer optimizer(weights, {}, rules);
    const auto before = Tensors(weights.base());
    int64_t trained = 0, frozen = 0;
    for (const TensorEntry& e : weights.table().entries()) {
      const bool fixed =
          e.name == "embedding" || e.name == "layers.0.qkv" || e.name == "layers.1.input_norm";
      const auto place = optimizer.sets().front().PlaceOf(e);
      frozen += place < 0;
      if (place >= 0) trained += e.elements;
      EXPECT_TRUE(place >= 0 || fixed) << e.name;
    }
    EXPECT_EQ(frozen, 3);
    Teach(weights, optimizer, 5);
    int64_t stayed = 0;
    for (const auto& [name, bytes] : Tensors(weights.base())) stayed += bytes == before.at(name);
    EXPECT_EQ(stayed, 3);
    // Gradient and moments are as long as what is trained, but for the gaps that end its tensors.
    EXPECT_EQ(optimizer.grad().elements(), optimizer.m().elements());
    EXPECT_LT(optimizer.grad().elements(),
              weights.flat().elements() - weights.table().shape().vocab * 32);
    const bool own = dtype == DType::kBFloat16;
    EXPECT_EQ(OptimizerBytes(optimizer, true), trained * (own ? 10 : 8));
  }
}

TEST(TrainingRulesTest, GradientsOfTheRestAreThoseOfATrainingOfAll) {
  Weights weights = Tiny(DType::kFloat32, "qwen3");  // norms of queries and keys
  Optimizer all(weights, {}),
      some(weights, {}, {.frozen = {"q_norm", "layers.0.mlp", "layers.1.self_attn.o_proj"}});
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 512);
  const auto rows = RandomDemonstrations(8, 4);
  std::vector<SequenceView> views;
  for (const Demonstration& d : rows) views.push_back({d.tokens, d.loss_mask});
  for (Optimizer* each : {&all, &some}) {
    each->ZeroGrad();
    train.Accumulate(
        weights, views, 1.0f, [](const ScoredToken&) { return TrainStep::Gradient{.logprob = -1}; },
        each->gradients());
  }
  int64_t compared = 0, left_out = 0;
  for (const TensorEntry& e : weights.table().entries()) {
    const int64_t place = some.sets().front().PlaceOf(e);
    if (place < 0) {
      ++left_out;
      continue;
    }
    EXPECT_EQ(0, std::memcmp(all.grad().f32() + e.offset, some.grad().f32() + place,
                             static_cast<size_t>(e.elements) * sizeof(float)))
        << e.name;
    ++compared;
  }
  EXPECT_EQ(left_out, 2 + 2 + 1);  // the norms of two layers; gate_up and down of one; o of one
  EXPECT_GT(compared, 8);
}

TEST(TrainingRulesTest, AFactorIsThatOfTheFirstPatternAndScalesTheRate) {
  // One update from zero moments moves a parameter by the rate times its factor.
  const auto moved = [](const TrainingRules& rules) {
    Weights weights = Adapted();
    Optimizer optimizer(weights, {.weight_decay = 0, .grad_clip = 0}, rules);
    ParameterSet& set = *weights.adapters()[0];
    const std::vector<float> before(set.flat.f32(), set.flat.f32() + set.flat.elements());
    optimizer.ZeroGrad();
    std::fill_n(optimizer.grad().f32(), optimizer.grad().elements(), 2.0f);
    EXPECT_TRUE(optimizer.Update(1e-2, 0).applied);
    std::map<std::string, float> out;
    for (const TensorEntry& e : set.table->entries())
      out[e.name] = before[static_cast<size_t>(e.offset)] - set.flat.f32()[e.offset];
    return out;
  };
  const auto plain = moved({});
  const auto rated =
      moved({.learning_rates = {{"layers.0.*lora_B", 16}, {"lora_B", 4}, {"q_proj", 0.5}}});
  for (const auto& [name, step] : plain) {
    const float factor = name.ends_with("lora_B") ? (name.starts_with("layers.0.") ? 16 : 4)
                         : name.find("q_proj") != std::string::npos ? 0.5f
                                                                    : 1;
    EXPECT_NEAR(step, 1e-2f, 1e-6f);
    EXPECT_NEAR(rated.at(name), factor * 1e-2f, 2e-6f) << name;
  }
}

TEST(TrainingRulesTest, PartsOfAnAdapterMayBeFrozen) {
  Weights weights = Adapted();
  Optimizer optimizer(weights, {}, {.frozen = {"lora_A"}});
  const auto before = Tensors(*weights.adapters()[0]);
  Teach(weights, optimizer, 4);
  for (const auto& [name, bytes] : Tensors(*weights.adapters()[0]))
    EXPECT_EQ(bytes == before.at(name), name.ends_with("lora_A")) << name;
}

TEST(TrainingRulesTest, ACheckpointHoldsWhatIsFrozenAndGoesOnBitForBit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const testing::TempFolder folder;
    const TrainingRules rules{.learning_rates = {{"layers.1.", 2}},
                              .frozen = {"embed_tokens", "down_proj"}};
    Weights weights = Tiny(dtype), other(weights.shape(), Device::kCpu, dtype);
    Optimizer optimizer(weights, {}, rules), restored(other, {}, rules);
    Teach(weights, optimizer, 4);
    Checkpoints checkpoints(folder / "c", 2, "");
    const CheckpointState state{.step = 4,
                                .policy = {.version = 4, .digest = weights.ComputeDigest()},
                                .counters = optimizer.counters(),
                                .moment_steps = optimizer.moment_steps()};
    checkpoints.Save(state, weights, optimizer);
    const auto found = checkpoints.FindNewest();
    ASSERT_TRUE(found.has_value());
    checkpoints.Load(*found, other, restored);
    EXPECT_EQ(other.ComputeDigest(), weights.ComputeDigest());
    Teach(weights, optimizer, 3, 5);
    Teach(other, restored, 3, 5);
    EXPECT_EQ(other.ComputeDigest(), weights.ComputeDigest());
    Weights whole = Tiny(dtype);
    whole.LoadTrained(found->path + "/model");
    EXPECT_EQ(whole.ComputeDigest(), found->state.policy.digest);
  }
}

TEST(TrainingRulesTest, PatternsThatCannotBeAreSaid) {
  const auto has = [](const std::string& text, const char* words) {
    return text.find(words) != std::string::npos;
  };
  EXPECT_TRUE(has(Refused({.frozen = {"lm_head"}}), "policy.frozen"));
  EXPECT_TRUE(has(Refused({.frozen = {"q_proj"}}), "some of model.layers."));
  EXPECT_TRUE(has(Refused({.frozen = {"model"}}), "nothing to train"));
  EXPECT_TRUE(has(Refused({.frozen = {"(?!a)b"}}), "regular expression"));
  EXPECT_TRUE(has(Refused({.learning_rates = {{"gate_proj", 2}}}), "policy.learning_rates"));
  EXPECT_TRUE(
      has(Refused({.learning_rates = {{"embed_tokens", 2}}}, true), "matches no parameter"));
  EXPECT_EQ(Refused({.learning_rates = {{"(gate|up)_proj", 2}}, .frozen = {"norm"}}), "");
  EXPECT_EQ(Refused({.learning_rates = {{"lora_B", 16}}}, true), "");
}

TEST(TrainingRulesTest, WhatAdaptersDropIsDrawnAnewForEveryUpdateAndAgainAfterAResume) {
  Weights weights = Adapted();
  Optimizer optimizer(weights, {}, {.seed = 3}), other(weights, {}, {.seed = 4});
  const uint64_t first = optimizer.gradients().dropout_key;
  EXPECT_NE(other.gradients().dropout_key, first);
  optimizer.ZeroGrad();
  optimizer.Update(1e-3, 0);
  const uint64_t second = optimizer.gradients().dropout_key;
  EXPECT_NE(second, first);
  optimizer.Restore({.updates = 0, .skipped = 1});
  EXPECT_EQ(optimizer.gradients().dropout_key, second);
  optimizer.Restore({});
  EXPECT_EQ(optimizer.gradients().dropout_key, first);
}

// 8 bits and no masters know nothing of runs: they are refused, not computed wrongly.
TEST(TrainingRulesTest, CompactMomentsTrainWholeModels) {
  Weights weights = Tiny();
  configs::OptimizerConfig options;
  options.moments = configs::Moments::kInt8;
  EXPECT_NO_THROW(Optimizer(weights, options, {}));
  EXPECT_THROW(Optimizer(weights, options, {.frozen = {"embed_tokens"}}), Error);
  EXPECT_THROW(Optimizer(weights, options, {.learning_rates = {{"embed_tokens", 0.5}}}), Error);
}

}  // namespace
}  // namespace plumb::learner
