#include "configs/batch_ramp.h"

#include <gtest/gtest.h>

#include <vector>

namespace plumb::configs {
namespace {

TEST(BatchRampTest, GrowsInALineAndStays) {
  const BatchRamp ramp(32, 4, 0.25);
  const std::vector<int64_t> sizes = {8, 14, 20, 26, 32, 32};
  int64_t before = 0;
  for (int64_t step = 0; step < 6; ++step) {
    EXPECT_EQ(ramp.Before(step), before);
    EXPECT_EQ(ramp.Of(step), sizes[static_cast<size_t>(step)]);
    before += ramp.Of(step);
  }
  EXPECT_EQ(BatchRamp(32).Of(0), 32);
  EXPECT_EQ(BatchRamp(32).Before(3), 96);
  EXPECT_EQ(BatchRamp(3, 8, 0.0).Of(0), 1) << "never none";
}

TEST(BatchRampTest, NumbersLeadBackToTheirStep) {
  for (const BatchRamp& ramp : {BatchRamp(7), BatchRamp(7, 5, 0.3), BatchRamp(2, 9, 0.0)}) {
    for (int64_t step = 0; step < 20; ++step) {
      EXPECT_EQ(ramp.StepOf(ramp.Before(step)), step);
      EXPECT_EQ(ramp.StepOf(ramp.Before(step + 1) - 1), step);
    }
  }
}

}  // namespace
}  // namespace plumb::configs
