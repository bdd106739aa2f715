#include "common/base/metrics/missing_steps.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

MissingSteps Of(std::initializer_list<int64_t> steps) {
  MissingSteps missing;
  for (const int64_t step : steps) missing.Step(step);
  return missing;
}

TEST(MissingStepsTest, NamesHoles) {
  EXPECT_EQ(Of({}).Text(), "");
  EXPECT_EQ(Of({0, 1, 2}).count(), 0);
  const MissingSteps holes = Of({1, 2, 5, 9, 10, 12});
  EXPECT_EQ(holes.count(), 1 + 2 + 3 + 1);
  EXPECT_EQ(holes.Text(), "0, 3, 4, 6 to 8, 11");
  EXPECT_EQ(holes.Text(2), "0, 3, 4 and 4 more");
}

// What a resume wrote anew has its own holes, and the older ones behind it are gone.
TEST(MissingStepsTest, AStepThatComesAgainTakesWhatWasBehindIt) {
  MissingSteps missing = Of({0, 2, 6, 9});  // 1, 3 to 5, 7 and 8
  missing.Step(4);
  EXPECT_EQ(missing.Text(), "1, 3");
  EXPECT_EQ(missing.count(), 2);
  missing.Step(5);
  missing.Step(7);
  EXPECT_EQ(missing.Text(), "1, 3, 6");
  missing.Step(0);
  EXPECT_EQ(missing.Text(), "");
  missing.Step(1);
  EXPECT_EQ(missing.count(), 0);
}

}  // namespace
}  // namespace plumb
