// Tables of positions: what of a specification reaches the device.
#include "policy_model/layers/rotary_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::policy_model {
namespace {

TEST(RotaryTable, HoldsAnglesAndTheScaleOfQueries) {
  const RotarySpec spec{.frequencies = {1.0, 0.1},
                        .factor = 2,
                        .interleaved = true,
                        .query_beta = 0.5,
                        .query_step = 4};
  const RotaryTable made = MakeRotaryTable(spec, 10, Device::kCpu);
  EXPECT_EQ(made.dims, 4);
  EXPECT_TRUE(made.interleaved);
  ASSERT_EQ(made.cos_sin.elements(), 40);
  EXPECT_FLOAT_EQ(made.cos_sin.f32()[4 * 3 + 1], 2 * std::cos(0.3f));
  EXPECT_FLOAT_EQ(made.cos_sin.f32()[4 * 3 + 2], 2 * std::sin(3.0f));
  ASSERT_EQ(made.query_scale.elements(), 10);
  EXPECT_FLOAT_EQ(made.query_scale.f32()[3], 1.0f) << "not within the first step";
  EXPECT_FLOAT_EQ(made.query_scale.f32()[4], 1 + 0.5f * std::log(2.0f));
  EXPECT_FLOAT_EQ(made.query_scale.f32()[9], 1 + 0.5f * std::log(3.0f));
}

TEST(RotaryTable, QueriesStayAsTheyAreWithoutAScale) {
  const RotaryTable made = MakeRotaryTable({.frequencies = {1.0}}, 3, Device::kCpu);
  EXPECT_EQ(made.query_scale.elements(), 0);
  EXPECT_FALSE(made.interleaved);
}

}  // namespace
}  // namespace plumb::policy_model
