// policy_model/stage_ends.h: two transformers with a range of the layers each, one after the other,
// against one that has all of them.
#include "policy_model/stage_ends.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "common/base/error.h"
#include "policy_model/families/stages/stage_shape.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape() {
  return {.family = "llama",
          .layers = 3,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 48,
          .vocab = 19,
          .max_positions = 64,
          .tied = false};
}

PackedBatch Batch() {
  PackedBatch batch;
  for (const auto& tokens :
       {std::vector<int32_t>{3, 5, 7, 9, 11}, std::vector<int32_t>{2, 18, 4}}) {
    std::vector<uint8_t> mask(tokens.size(), 1);
    mask[1] = 0;
    batch.Append(tokens, mask);
  }
  return batch;
}

// The tensors of the whole that the stage has, and back.
void Copy(const Weights& whole, Weights& stage, std::span<const int64_t> has) {
  for (size_t i = 0; i < has.size(); ++i) {
    if (has[i] < 0) continue;
    const TensorEntry &from = whole.table().entries()[i],
                      &to = stage.table().entries()[static_cast<size_t>(has[i])];
    std::copy_n(whole.flat().f32() + from.offset, from.elements, stage.flat().f32() + to.offset);
  }
}

TEST(StageEndsTest, TwoStagesAreTheWhole) {
  for (const bool recompute : {false, true}) {
    Weights whole(Shape(), Device::kCpu, DType::kFloat32);
    whole.Initialise(3, 0.2);
    const PackedBatch batch = Batch();
    const size_t rows = batch.rows.size();
    const ScoreOptions options{.temperature = 0.9f};
    std::vector<float> logprob(rows), entropy(rows), staged(rows), staged_entropy(rows),
        g_logprob(rows, -0.5f), g_entropy(rows, 0.1f);
    Transformer one(Shape(), Device::kCpu, DType::kFloat32);
    FlatBuffer grad(Device::kCpu, DType::kFloat32, whole.flat().elements());
    one.Forward(whole, batch, options, true, logprob, entropy);
    one.Backward(whole, batch, g_logprob, g_entropy, grad);

    const auto ranges = StagesOf(Shape(), 2, "");
    std::vector<Weights> weights;
    std::vector<std::unique_ptr<Transformer>> transformers;
    std::vector<StageEnds> ends(2);
    std::vector<FlatBuffer> grads;
    std::vector<std::vector<int64_t>> has;
    for (int stage = 0; stage < 2; ++stage) {
      const ModelShape shape = StageShape(Shape(), stage, 2, "");
      Weights& of = weights.emplace_back(shape, Device::kCpu, DType::kFloat32);
      has.push_back(StageEntries(whole.table(), of.table(), ranges[static_cast<size_t>(stage)],
                                 stage == 0, stage == 1));
      Copy(whole, of, has.back());
      transformers.push_back(std::make_unique<Transformer>(shape, Device::kCpu, DType::kFloat32));
      transformers.back()->RecomputeLayers(recompute);
      grads.emplace_back(Device::kCpu, DType::kFloat32, of.flat().elements());
      StageEnds& end = ends[static_cast<size_t>(stage)];
      end.first = stage == 0;
      end.last = stage == 1;
      end.vocab = Shape().vocab;
    }
    ScoreOptions first = options, second = options;
    first.guest = &ends[0];
    second.guest = &ends[1];
    transformers[0]->Forward(weights[0], batch, first, true, {}, {});
    ends[1].input = ends[0].output;
    transformers[1]->Forward(weights[1], batch, second, true, staged, staged_entropy);
    EXPECT_EQ(staged, logprob) << "the same products in the same order";
    EXPECT_EQ(staged_entropy, entropy);
    transformers[1]->Backward(weights[1], batch, g_logprob, g_entropy, grads[1]);
    ends[0].output_gradient = ends[1].input_gradient;
    transformers[0]->Backward(weights[0], batch, {}, {}, grads[0]);
    for (size_t stage = 0; stage < 2; ++stage) {
      for (size_t i = 0; i < has[stage].size(); ++i) {
        if (has[stage][i] < 0) continue;
        const TensorEntry &in_whole = whole.table().entries()[i],
                          &here =
                              weights[stage].table().entries()[static_cast<size_t>(has[stage][i])];
        const float *expected = grad.f32() + in_whole.offset,
                    *found = grads[stage].f32() + here.offset;
        EXPECT_TRUE(std::equal(expected, expected + in_whole.elements, found)) << in_whole.name;
      }
    }
  }
}

// Which tokens there are is the whole's to say; the head is the last stage's alone.
TEST(StageEndsTest, AStageBetweenKnowsNoTokens) {
  ModelShape shape = Shape();
  const ModelShape between = StageShape(shape, 1, 3, "");
  ASSERT_EQ(between.vocab, 1);
  Weights weights(between, Device::kCpu, DType::kFloat32);
  Transformer transformer(between, Device::kCpu, DType::kFloat32);
  const PackedBatch batch = Batch();
  const std::vector<float> input(static_cast<size_t>(batch.size() * shape.hidden), 0.5f);
  StageEnds ends;
  ends.first = ends.last = false;
  ends.vocab = shape.vocab;
  ends.input = input.data();
  transformer.Forward(weights, batch, {.guest = &ends}, false, {}, {});
  const auto* output = static_cast<const float*>(ends.output);
  EXPECT_EQ(output[0], 0.5f) << "layers of zeros add nothing";
  ends.vocab = 10;
  EXPECT_THROW(transformer.Forward(weights, batch, {.guest = &ends}, false, {}, {}), Error);
}

}  // namespace
}  // namespace plumb::policy_model
