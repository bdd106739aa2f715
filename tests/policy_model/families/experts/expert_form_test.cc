// policy_model/families/experts/expert_form.h
#include "policy_model/families/experts/expert_form.h"

#include <gtest/gtest.h>

namespace plumb::policy_model {
namespace {

TEST(ExpertForm, CountsTheLayersThatHaveExperts) {
  ModelShape shape;
  shape.layers = 5;
  EXPECT_FALSE(ExpertFormOf(shape).there());
  shape.experts = {.count = 128, .widths = {64}, .per_token = 8};
  EXPECT_EQ(ExpertFormOf(shape), (ExpertForm{5, 8, 128}));
  shape.experts.dense = {1, 0, 0, 1, 0};
  EXPECT_EQ(ExpertFormOf(shape), (ExpertForm{3, 8, 128}));
}

}  // namespace
}  // namespace plumb::policy_model
