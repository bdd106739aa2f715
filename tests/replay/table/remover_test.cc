// replay/table/remover.h and replay/table/rate_limiter.h: what leaves a table, and how much may be
// drawn.
#include "replay/table/remover.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "replay/table/rate_limiter.h"

namespace plumb::replay {
namespace {

std::vector<SampleItem> Items(const std::vector<std::pair<double, int64_t>>& priority_and_times) {
  std::vector<SampleItem> items;
  for (const auto& [priority, times] : priority_and_times) {
    items.push_back({.key = items.size(), .priority = priority, .times_sampled = times});
  }
  return items;
}

std::vector<uint64_t> Keys(const std::vector<SampleItem>& items) {
  std::vector<uint64_t> keys;
  for (const SampleItem& item : items) keys.push_back(item.key);
  return keys;
}

TEST(Remover, WhoLeavesAndWhoStays) {
  EXPECT_EQ(Remover({.max_steps = 3}).FirstStep(5), 2);
  EXPECT_EQ(Remover({.max_steps = 9}).FirstStep(5), 0);
  const auto items = Items({{3, 0}, {1, 2}, {2, 1}, {1, 0}, {4, 0}});
  EXPECT_EQ(Keys(Remover({}).Apply(items)), (std::vector<uint64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(Keys(Remover({.max_times_sampled = 2}).Apply(items)),
            (std::vector<uint64_t>{0, 2, 3, 4}));
  EXPECT_EQ(Keys(Remover({.max_times_sampled = 1}).Apply(items)), (std::vector<uint64_t>{0, 3, 4}));
  EXPECT_EQ(Keys(Remover({.max_groups = 2}).Apply(items)), (std::vector<uint64_t>{3, 4}));
  EXPECT_EQ(Keys(Remover({.max_groups = 3, .evict = configs::Evict::kLowestPriority}).Apply(items)),
            (std::vector<uint64_t>{0, 2, 4}));
  EXPECT_EQ(Keys(Remover({.max_groups = 4, .evict = configs::Evict::kLowestPriority}).Apply(items)),
            (std::vector<uint64_t>{0, 2, 3, 4}));
  EXPECT_THROW(Remover({.max_steps = 0}), Error);
}

// Whatever comes in and whoever asks, the bound holds at every moment, and it is used up by who
// asks often enough.
TEST(RateLimiter, DrawsNeverExceedTheRatio) {
  for (const double ratio : {0.25, 1.0, 3.5}) {
    const RateLimiter limiter({.samples_per_insert = ratio, .min_groups = 10});
    RandomStream random(7, 1);
    int64_t inserts = 0, samples = 0;
    for (int i = 0; i < 2000; ++i) {
      inserts += random.NextBelow(4);
      const int64_t wanted = random.NextBelow(20);
      const int64_t granted = limiter.Grant(inserts, samples, wanted);
      ASSERT_GE(granted, 0);
      ASSERT_LE(granted, wanted);
      samples += granted;
      if (inserts < 10) {
        ASSERT_EQ(samples, 0);
      } else {
        ASSERT_LE(static_cast<double>(samples), ratio * static_cast<double>(inserts - 9));
      }
    }
    samples += limiter.Grant(inserts, samples, 1'000'000);
    EXPECT_EQ(samples, static_cast<int64_t>(ratio * static_cast<double>(inserts - 9)));
    // beyond the bound: nothing, not less than nothing
    EXPECT_EQ(limiter.Grant(inserts, samples + 5, 3), 0);
  }
}

TEST(RateLimiter, OldPoliciesAreStale) {
  const RateLimiter limiter({.max_staleness = 3});
  EXPECT_TRUE(limiter.Fresh(7, 10));
  EXPECT_FALSE(limiter.Fresh(6, 10));
  EXPECT_TRUE(RateLimiter({}).Fresh(0, 1000));
  EXPECT_THROW(RateLimiter({.samples_per_insert = 0}), Error);
  EXPECT_THROW(RateLimiter({.min_groups = 0}), Error);
}

}  // namespace
}  // namespace plumb::replay
