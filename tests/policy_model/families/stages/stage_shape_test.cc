// policy_model/families/stages/stage_shape.h: who has which layers, and which tensors those are.
#include "policy_model/families/stages/stage_shape.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape(int64_t layers, bool tied = true) {
  return {.family = "qwen3",
          .layers = layers,
          .hidden = 16,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 4,
          .ffn = 24,
          .vocab = 40,
          .max_positions = 32,
          .tied = tied,
          .eos_tokens = {18},
          .unused_tokens = {39}};
}

std::string ErrorOf(const ModelShape& shape, int stages) {
  try {
    StageShape(shape, stages - 1, stages, "run.parallel");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::vector<int64_t> Sizes(std::span<const LayerRange> ranges) {
  std::vector<int64_t> out;
  for (const LayerRange& each : ranges) out.push_back(each.end - each.begin);
  return out;
}

TEST(StageShapeTest, RangesAreBalanced) {
  const std::vector<int64_t> equal(8, 10);
  EXPECT_EQ(Sizes(BalancedRanges(equal, 0, 4)), (std::vector<int64_t>{2, 2, 2, 2}));
  EXPECT_EQ(Sizes(BalancedRanges(equal, 20, 2)), (std::vector<int64_t>{5, 3}));
  // A head that is worth three layers: none of the ranges need cost more than four.
  const auto with_head = BalancedRanges(equal, 30, 3);
  EXPECT_EQ(with_head.back().end - with_head.back().begin, 1);
  EXPECT_EQ(Sizes(with_head)[0] + Sizes(with_head)[1], 7);
  EXPECT_EQ(Sizes(BalancedRanges(std::vector<int64_t>{50, 1, 1, 1}, 0, 2)),
            (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(Sizes(BalancedRanges(std::vector<int64_t>{1, 1, 1}, 1000, 3)),
            (std::vector<int64_t>{1, 1, 1}))
      << "no stage is empty";
}

// Every tensor of the whole is one of exactly one stage's, of the same size; the embedding that is
// the head, too, of two.
TEST(StageShapeTest, StagesMakeUpTheWhole) {
  for (const bool tied : {true, false}) {
    for (const int stages : {2, 3, 4}) {
      const ModelShape shape = Shape(5, tied);
      const TensorTable whole(shape);
      const auto ranges = StagesOf(shape, stages, "");
      EXPECT_EQ(ranges.front().begin, 0);
      EXPECT_EQ(ranges.back().end, 5);
      const std::vector<int> first = FirstStages(whole, ranges);
      std::vector<int> owners(whole.entries().size(), 0);
      int64_t parameters = 0;
      for (int stage = 0; stage < stages; ++stage) {
        const TensorTable table(StageShape(shape, stage, stages, ""));
        const auto has = StageEntries(whole, table, ranges[static_cast<size_t>(stage)], stage == 0,
                                      stage + 1 == stages);
        for (size_t i = 0; i < has.size(); ++i) {
          if (has[i] < 0) continue;
          EXPECT_EQ(table.entries()[static_cast<size_t>(has[i])].shape, whole.entries()[i].shape);
          if (owners[i]++ == 0) {
            EXPECT_EQ(first[i], stage) << whole.entries()[i].name;
          }
        }
        parameters += table.parameters();
      }
      for (size_t i = 0; i < owners.size(); ++i) {
        const bool both = tied && whole.entries()[i].name == "embedding";
        EXPECT_EQ(owners[i], both ? 2 : 1) << whole.entries()[i].name;
      }
      // A final norm on each stage, and a row of an embedding on those between.
      const int64_t nothing = (stages - 1) * shape.hidden + (stages - 2) * shape.hidden;
      EXPECT_EQ(parameters, whole.parameters() + nothing + (tied ? shape.vocab * shape.hidden : 0));
    }
  }
}

TEST(StageShapeTest, LayersThatDifferKeepWhatTheyAre) {
  ModelShape shape = Shape(6);
  shape.family = "gemma3_text";
  shape.window = 4;
  shape.sliding = {1, 1, 1, 0, 1, 1};
  const auto ranges = StagesOf(shape, 3, "");
  const ModelPlan plan = PlanOf(shape);
  for (int stage = 0; stage < 3; ++stage) {
    const LayerRange& layers = ranges[static_cast<size_t>(stage)];
    const ModelPlan cut = PlanOf(StageShape(shape, stage, 3, ""));
    for (int64_t l = layers.begin; l < layers.end; ++l) {
      EXPECT_EQ(cut.layers[static_cast<size_t>(l - layers.begin)].window,
                plan.layers[static_cast<size_t>(l)].window);
    }
  }
  EXPECT_EQ(StageShape(shape, 1, 3, "").vocab, 1);
  EXPECT_EQ(StageShape(shape, 2, 3, "").unused_tokens, shape.unused_tokens);
}

TEST(StageShapeTest, CostsAreThoseOfProducts) {
  const ModelShape shape = Shape(4);
  const auto costs = StageCosts(shape, StagesOf(shape, 2, ""));
  const int64_t layer = 16 * (16 + 8 + 8) + 16 * 16 + 3 * 16 * 24;
  EXPECT_EQ(costs[0] + costs[1], 4 * layer + 16 * 40);
}

TEST(StageShapeTest, WhatCannotBeCutIsRefusedWithTheReason) {
  EXPECT_EQ(ErrorOf(Shape(4), 4), "");
  EXPECT_NE(ErrorOf(Shape(4), 5).find("run.parallel: asks for pp=5, and each stage needs a layer"),
            std::string::npos)
      << ErrorOf(Shape(4), 5);
  ModelShape scalar = Shape(4);
  scalar.scalar_head = true;
  EXPECT_NE(ErrorOf(scalar, 2).find("scalar head"), std::string::npos);
  ModelShape experts = Shape(4);
  experts.family = "qwen3_moe";
  experts.experts = {.count = 4, .widths = {8}, .per_token = 2};
  EXPECT_NE(ErrorOf(experts, 2).find("mixtures of experts"), std::string::npos)
      << ErrorOf(experts, 2);
}

}  // namespace
}  // namespace plumb::policy_model
