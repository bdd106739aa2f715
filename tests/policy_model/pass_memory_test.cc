// policy_model/pass_memory.h and pass_bytes.h: layers that are computed again give the same bits
// from less memory, and how much that is is known before.
#include "policy_model/pass_memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "policy_model/families/model_config.h"
#include "policy_model/pass_bytes.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

PackedBatch BatchOf(int sequences, int length, int vocab, bool shares) {
  PackedBatch batch;
  batch.Clear();
  const auto token = [&](int s, int i) {
    return static_cast<int32_t>(3 + (7 * s + 5 * i) % (vocab - 3));
  };
  std::vector<int32_t> prompt;
  for (int i = 0; i < 4; ++i) prompt.push_back(token(0, i));
  if (shares) batch.AppendPrefix(prompt);
  for (int s = 0; s < sequences; ++s) {
    std::vector<int32_t> tokens = prompt;
    std::vector<uint8_t> mask(prompt.size() + 1, 0);
    for (int i = 4; i < length; ++i) tokens.push_back(token(s + 1, i));
    mask.resize(tokens.size(), 1);
    batch.Append(tokens, mask, shares ? 4 : 0);
  }
  return batch;
}

struct Step {
  std::vector<float> logprob, entropy;
  std::vector<std::vector<float>> gradients;  // of each set that is trained
  int64_t bytes = 0;
  bool operator==(const Step& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
    };
    if (gradients.size() != other.gradients.size()) return false;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!same(gradients[i], other.gradients[i])) return false;
    }
    return same(logprob, other.logprob) && same(entropy, other.entropy);
  }
};

Step RunStep(const Weights& weights, const PackedBatch& batch, bool recompute) {
  Transformer model(weights.shape(), Device::kCpu, weights.dtype());
  model.RecomputeLayers(recompute);
  Step out;
  out.logprob.resize(batch.rows.size());
  out.entropy.resize(batch.rows.size());
  std::vector<FlatBuffer> flats;
  std::vector<FlatBuffer*> adapters;
  for (const auto& set : weights.sets())
    flats.emplace_back(Device::kCpu, DType::kFloat32, set->flat.elements());
  Gradients grad;
  if (weights.base().trained) grad.base = &flats[0];
  for (size_t i = 1; i < flats.size(); ++i) adapters.push_back(&flats[i]);
  grad.adapters = adapters;
  std::vector<float> g(batch.rows.size()), h(batch.rows.size());
  for (size_t i = 0; i < g.size(); ++i) {
    g[i] = std::cos(static_cast<float>(i));
    h[i] = 0.1f * std::sin(static_cast<float>(i));
  }
  // Twice: the second adds to the gradients, from arenas that are there already.
  for (int i = 0; i < 2; ++i) {
    model.Forward(weights, batch, {}, true, out.logprob, out.entropy);
    model.Backward(weights, batch, g, h, grad);
  }
  for (const FlatBuffer& flat : flats)
    out.gradients.emplace_back(flat.f32(), flat.f32() + flat.elements());
  out.bytes = model.arena_bytes();
  return out;
}

class RecomputeTest : public ::testing::TestWithParam<std::string> {};

TEST_P(RecomputeTest, GradientsHaveTheSameBits) {
  const testing::TempFolder folder;
  WriteFamilyFolder(GetParam(), folder.path());
  const ModelShape shape = ReadModelConfig(folder.path(), LongestOf(GetParam()));
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool lora : {false, true}) {
      Weights weights(shape, Device::kCpu, dtype);
      weights.Load(folder.path());
      if (lora) {
        weights.AddAdapter({.rank = 3}, 5);
        // B is 0 in the beginning, and with it the gradient of A.
        FlatBuffer& flat = weights.sets()[1]->flat;
        std::vector<float> values(static_cast<size_t>(flat.elements()));
        for (size_t i = 0; i < values.size(); ++i)
          values[i] = 0.05f * std::sin(static_cast<float>(i));
        std::vector<std::byte> bytes(flat.bytes());
        ConvertFloat(values, dtype, bytes.data());
        flat.CopyFromHost(bytes);
      }
      for (const bool shares : {false, true}) {
        const PackedBatch batch = BatchOf(3, 11, static_cast<int>(shape.vocab), shares);
        const Step kept = RunStep(weights, batch, false), again = RunStep(weights, batch, true);
        EXPECT_TRUE(kept == again)
            << ElementSize(dtype) << " lora " << lora << " shares " << shares;
        double norm = 0;
        for (const float x : kept.gradients.back()) norm += std::abs(static_cast<double>(x));
        EXPECT_GT(norm, 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RecomputeTest, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& info) { return info.param; });

ModelShape Shape() {
  return {.family = "llama",
          .layers = 6,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 96,
          .vocab = 101,
          .max_positions = 512,
          .tied = true,
          .eos_tokens = {2}};
}

// Neither a formula nor a bound: what the transformer holds afterwards.
TEST(PassBytesTest, TheArenasAreAsLongAsWasReckoned) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool lora : {false, true}) {
      Weights weights(Shape(), Device::kCpu, dtype);
      weights.Initialise(1, 0.2);
      Weights planned = Weights::WithoutMemory(Shape(), Device::kCpu, dtype);
      if (lora) {
        weights.AddAdapter({.rank = 4}, 1);
        planned.AddAdapter({.rank = 4}, 1);
        EXPECT_EQ(planned.sets()[1]->flat.elements(), weights.sets()[1]->flat.elements());
        EXPECT_FALSE(planned.base().trained);
      }
      const PackedBatch batch = BatchOf(8, 60, 101, false);
      const PassSize size{.tokens = batch.size(),
                          .rows = static_cast<int64_t>(batch.rows.size()),
                          .longest = batch.max_seqlen};
      for (const bool recompute : {false, true}) {
        EXPECT_EQ(RunStep(weights, batch, recompute).bytes,
                  BytesOfTraining(planned, size, recompute).total())
            << ElementSize(dtype) << " lora " << lora << " recompute " << recompute;
      }
      Transformer scoring(weights.shape(), Device::kCpu, dtype);
      std::vector<float> logprob(batch.rows.size());
      scoring.Forward(weights, batch, {.entropy = false}, false, logprob, {});
      EXPECT_EQ(scoring.arena_bytes(), BytesOfScoring(planned, size).total());
      EXPECT_LT(BytesOfScoring(planned, size).total(),
                BytesOfTraining(planned, size, true).total());
    }
  }
}

TEST(PassBytesTest, WhatIsSavedGrowsByALayersInputOnly) {
  const auto saved = [](int64_t layers, bool recompute) {
    ModelShape shape = Shape();
    shape.layers = layers;
    return BytesOfTraining(Weights::WithoutMemory(shape, Device::kCpu, DType::kFloat32),
                           {.tokens = 1024, .rows = 1024, .longest = 256}, recompute)
        .saved;
  };
  const int64_t input = 1024 * 32 * 4;
  // And the arena's own eighth.
  EXPECT_NEAR(static_cast<double>(saved(40, true) - saved(20, true)),
              static_cast<double>(20 * input) * 1.125, 64);
  EXPECT_GT(saved(40, false), 6 * saved(40, true));
}

TEST(PassBytesTest, AStepOfGenerationIsReckonedToo) {
  const Weights weights = Weights::WithoutMemory(Shape(), Device::kCpu, DType::kFloat32);
  const int64_t logits = 4 * 16 * 101;
  EXPECT_GT(BytesOfStep(weights, 80, 16), logits);
  EXPECT_GT(BytesOfStep(weights, 160, 16), BytesOfStep(weights, 80, 16));
  EXPECT_EQ(BytesOfPositions(weights), 4 * 512 * 8);
}

TEST(PassMemoryTest, LogitsOfAChunkAreBounded) {
  EXPECT_EQ(PassMemory::LogitRows(Device::kCpu, 7, 1000), 7);
  EXPECT_EQ(PassMemory::LogitRows(Device::kCpu, 100'000, 151'936),
            (int64_t{32} << 20) / (4 * 151'936));
  EXPECT_EQ(PassMemory::LogitRows(Device::kCpu, 0, 1000), 1);
  // On a GPU whole tiles of rows, within a gigabyte.
  EXPECT_EQ(PassMemory::LogitRows(Device::Cuda(0), 100'000, 151'936), 1664);
  EXPECT_EQ(PassMemory::LogitRows(Device::Cuda(0), 7, 151'936), 7);
}

// A GPU's arrays lie where the host cannot read them; how much memory a pass takes is known
// without.
TEST(PassMemoryTest, APlanForAGpuReadsNothingThatLiesThere) {
  int place = 0;
  const Stream gpu = Stream::Borrow(Device::Cuda(0), &place);
  const auto* there = reinterpret_cast<const int32_t*>(uintptr_t{64});
  const std::vector<int32_t> parents = {-1, 0, 0};
  for (const std::string& family : FamilyCases()) {
    SCOPED_TRACE(family);
    const testing::TempFolder folder;
    WriteFamilyFolder(family, folder.path());
    const ModelShape shape = ReadModelConfig(folder.path(), LongestOf(family));
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const Weights weights = Weights::WithoutMemory(shape, gpu, dtype);
      std::vector<Branch> branches = BranchesOf(weights.table());
      Arena saved = Arena::WithoutMemory(gpu), scratch = Arena::WithoutMemory(gpu);
      const AttentionShape attention{{.tokens = 24,
                                      .sequences = 3,
                                      .cu_seqlens = there,
                                      .parents = parents.data(),
                                      .max_seqlen = 16,
                                      .heads = static_cast<int32_t>(shape.heads),
                                      .kv_heads = static_cast<int32_t>(shape.kv_heads),
                                      .head_dim = static_cast<int32_t>(shape.head_dim)},
                                     40,
                                     there,
                                     there,
                                     there,
                                     there,
                                     there};
      const PackedPass pass{
          {{.stream = gpu, .dtype = dtype}, weights, {}}, attention, there, true, saved, scratch};
      PassMemory memory;
      memory.PlanForward(branches, pass, 16, true);
      memory.PlanBackward(branches, pass, 16, 16, false);
      saved.Commit();
      scratch.Commit();
      EXPECT_GT(saved.bytes(), 0);
      EXPECT_GT(scratch.bytes(), 0);
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
