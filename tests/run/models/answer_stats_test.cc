// The formulas against counting every case, and against numbers worked out elsewhere.
#include "run/models/answer_stats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace plumb::run {
namespace {

TEST(AnswerStats, PassAtKIsTheShareOfSubsetsWithARightAnswer) {
  for (int64_t n = 1; n <= 8; ++n) {
    for (int64_t c = 0; c <= n; ++c) {
      for (int64_t k = 1; k <= n; ++k) {
        int64_t all = 0, solved = 0;
        for (uint32_t subset = 0; subset < (uint32_t{1} << n); ++subset) {
          if (std::popcount(subset) != k) continue;
          ++all;
          solved += (subset & ((uint32_t{1} << c) - 1)) != 0;  // the first c are right
        }
        EXPECT_NEAR(PassAtK(n, c, k), static_cast<double>(solved) / static_cast<double>(all), 1e-12)
            << n << " " << c << " " << k;
      }
    }
  }
  EXPECT_NEAR(PassAtK(1000, 1, 1), 0.001, 1e-12);
  EXPECT_NEAR(PassAtK(1024, 10, 100), 0.6438433303, 1e-9) << "no overflow";
}

TEST(AnswerStats, MeansAndTheirErrors) {
  const Estimate e = EstimateOf(std::vector<double>{1, 2, 3, 4});
  EXPECT_EQ(e.mean, 2.5);
  EXPECT_NEAR(e.error, std::sqrt(5.0 / 3 / 4), 1e-12);
  EXPECT_NEAR(e.high() - e.low(), 2 * 1.959964 * e.error, 1e-12);
  EXPECT_TRUE(std::isnan(EstimateOf(std::vector<double>{1}).error)) << "one value has no spread";
  EXPECT_TRUE(std::isnan(EstimateOf({}).mean));
  const std::vector<double> sums = {1, 2, 3, 4}, ones(4, 1.0);
  EXPECT_EQ(RatioOf(sums, ones).mean, e.mean);
  EXPECT_NEAR(RatioOf(sums, ones).error, e.error, 1e-12) << "clusters of one are single values";
  EXPECT_EQ(RatioOf(std::vector<double>{2, 4, 6}, std::vector<double>{1, 2, 3}).error, 0)
      << "every cluster has the same mean";
}

TEST(AnswerStats, TheMajorityIsWhatMostSayAndOfEqualsTheEarliest) {
  const auto same = [](const std::string& a, const std::string& b) { return a[0] == b[0]; };
  const auto vote = [&](std::vector<std::string> answers) { return MajorityOf(answers, same); };
  EXPECT_EQ(vote({"1", "2", "2b", "3"}), 1);
  EXPECT_EQ(vote({"", "", "", "7"}), 3) << "no answer is no vote";
  EXPECT_EQ(vote({"5", "6", "6", "5"}), 0);
  EXPECT_EQ(vote({"", ""}), -1);
  EXPECT_EQ(vote({}), -1);
}

}  // namespace
}  // namespace plumb::run
