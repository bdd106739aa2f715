#include "common/base/wilson_interval.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(WilsonIntervalTest, IsThatOfTheTextbook) {
  const auto [low, high] = WilsonInterval(0.9, 10);
  EXPECT_NEAR(low, 0.5958, 1e-4);
  EXPECT_NEAR(high, 0.9821, 1e-4);
  EXPECT_EQ(WilsonInterval(0, 0), (std::pair<double, double>{0, 1}));
  EXPECT_EQ(WilsonInterval(0, 50).first, 0);
  EXPECT_GT(WilsonInterval(0, 50).second, 0.05) << "none of fifty is not never";
}

}  // namespace
}  // namespace plumb
