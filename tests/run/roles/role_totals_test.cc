#include "run/roles/role_totals.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(RoleTotalsTest, AStepHasWhatWasDoneSinceTheStepBefore) {
  RoleTimes times({.generate_s = 1, .reward_s = 2, .generated_tokens = 100});
  std::map<std::string, double> metrics;
  times.AddStep({.generate_s = 1.5, .reward_s = 2.25, .generated_tokens = 300}, metrics);
  EXPECT_EQ(metrics,
            (std::map<std::string, double>{
                {"time/generate", 0.5}, {"time/reward", 0.25}, {"perf/decode_tokens_per_s", 400}}));
  times.AddStep({.generate_s = 1.5, .reward_s = 2.25, .generated_tokens = 300}, metrics);
  EXPECT_EQ(metrics.at("time/generate"), 0);
  EXPECT_EQ(metrics.at("perf/decode_tokens_per_s"), 0)
      << "no time and no tokens: not a number must not come out";
}

TEST(RoleTotalsTest, ARoleThatWasKilledGivesNoNegativeTime) {
  RoleTimes times({.generate_s = 10, .reward_s = 10, .generated_tokens = 1000});
  std::map<std::string, double> metrics;
  times.AddStep({.generate_s = 1, .reward_s = 1, .generated_tokens = 10}, metrics);
  for (const auto& [name, value] : metrics) EXPECT_EQ(value, 0) << name;
  times.AddStep({.generate_s = 2, .reward_s = 1, .generated_tokens = 60}, metrics);
  EXPECT_EQ(metrics.at("perf/decode_tokens_per_s"), 50) << "counted from its new beginning";
}

TEST(RoleTotalsTest, TravelsAmongOtherCountersAndLeavesNone) {
  const RoleTotals totals{.generate_s = 1.25, .reward_s = 0.5, .generated_tokens = 7};
  std::map<std::string, int64_t> counters = ToCounters(totals);
  counters["inserts"] = 3;
  const RoleTotals back = TakeRoleTotals(counters);
  EXPECT_EQ(back.generate_s, 1.25);
  EXPECT_EQ(back.reward_s, 0.5);
  EXPECT_EQ(back.generated_tokens, 7);
  EXPECT_EQ(counters, (std::map<std::string, int64_t>{{"inserts", 3}}));
  EXPECT_EQ(TakeRoleTotals(counters).generated_tokens, 0) << "a store that nobody has reported to";
}

}  // namespace
}  // namespace plumb::run
