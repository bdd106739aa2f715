#include "policy_model/families/experts/expert_share.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape() {
  ModelShape shape{.family = "plumb",
                   .layers = 2,
                   .hidden = 32,
                   .heads = 4,
                   .kv_heads = 2,
                   .head_dim = 8,
                   .ffn = 48,
                   .vocab = 19,
                   .max_positions = 64,
                   .tied = true,
                   .eos_tokens = {2}};
  shape.experts.count = 6;
  shape.experts.widths = {24};
  shape.experts.per_token = 2;
  shape.experts.shared_ffn = 16;
  shape.experts.dense = {1, 0};
  return shape;
}

std::string ErrorOf(const ModelShape& shape, int ranks) {
  try {
    ExpertShareOf(shape, 0, ranks, "run.parallel");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ExpertShareOfTest, RanksHaveTheirExpertsAndAllOfTheRest) {
  const TensorTable whole(Shape());
  for (int rank = 0; rank < 3; ++rank) {
    const ModelShape share = ExpertShareOf(Shape(), rank, 3, "run.parallel");
    EXPECT_EQ(share.experts.first_here, 2 * rank);
    const TensorTable own(share);
    ASSERT_EQ(own.entries().size(), whole.entries().size());
    for (size_t i = 0; i < own.entries().size(); ++i) {
      const TensorEntry &all = whole.entries()[i], &here = own.entries()[i];
      EXPECT_EQ(here.name, all.name);
      const bool of_experts = here.name.find(".experts_") != std::string::npos;
      EXPECT_EQ(IsOfExperts(all), of_experts) << all.name;
      EXPECT_EQ(here.elements, of_experts ? all.elements / 3 : all.elements) << all.name;
      const std::vector<ShareRun> runs = ExpertRuns(all, rank, 3);
      ASSERT_EQ(runs.size(), 1u);
      EXPECT_EQ(runs[0].size, here.elements);
      EXPECT_EQ(runs[0].whole, of_experts ? rank * here.elements : 0);
    }
    EXPECT_EQ(own.layer(1).experts_down.size(), 2u);
    EXPECT_EQ(own.entries()[0].parts.size(), whole.entries()[0].parts.size());
  }
}

TEST(ExpertShareOfTest, WhatCannotBeSharedOutIsRefused) {
  EXPECT_EQ(ErrorOf(Shape(), 2), "");
  EXPECT_NE(ErrorOf(Shape(), 4).find("run.parallel: asks for ep=4, and the model has 6 experts"),
            std::string::npos)
      << ErrorOf(Shape(), 4);
  ModelShape shape = Shape();
  shape.experts.widths = {24, 32};
  EXPECT_NE(ErrorOf(shape, 2).find("different widths"), std::string::npos) << ErrorOf(shape, 2);
  shape.experts = {};
  EXPECT_NE(ErrorOf(shape, 2).find("has no experts: share the work as dp=2"), std::string::npos)
      << ErrorOf(shape, 2);
}

}  // namespace
}  // namespace plumb::policy_model
