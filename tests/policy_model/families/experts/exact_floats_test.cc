#include "policy_model/families/experts/exact_floats.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/rng.h"

namespace plumb::policy_model {
namespace {

TEST(ExactFloats, ComeBackBitForBitThroughBfloat16) {
  std::vector<float> values = {0,
                               -0.0f,
                               1e-3f,
                               -8.123456f,
                               std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::lowest(),
                               std::numeric_limits<float>::infinity(),
                               16777215.0f};
  RandomStream random(1, 1);
  for (int i = 0; i < 20000; ++i)
    values.push_back(std::ldexp(random.NextNormal(), static_cast<int>(random.NextBelow(40)) - 20));
  std::vector<float> parts(3 * values.size()), back(values.size());
  SplitExact(values, parts);
  for (float& part : parts) {
    const float rounded = ToFloat(ToBFloat16(part));
    ASSERT_EQ(rounded, part) << "a part that bfloat16 has not";
    part = rounded;
  }
  JoinExact(parts, back);
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(back[i], values[i]) << i;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> of_nan(3);
  SplitExact(std::span(&nan, 1), of_nan);
  JoinExact(of_nan, std::span(back).first(1));
  EXPECT_TRUE(std::isnan(back[0]));
}

}  // namespace
}  // namespace plumb::policy_model
