#include "run/roles/carried_counters.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

using Counters = std::map<std::string, int64_t>;

TEST(CarriedCountersTest, ALifeGoesOnWhereTheKeptStepsEnded) {
  CarriedCounters carried;
  // The store lived on: it has inserts of steps that were not kept. The roles begin at 0.
  carried.Begin({{"replay/inserts", 40.0},
                 {"actor/leases", 44.0},
                 {"rollout/prefix_tokens_reused", 5.0},
                 {"reward/failed/part/timeout", 3.0},
                 {"reward/mean", 7.0},
                 {"replay/held", 9.0}},
                {{"inserts", 48}, {"held", 0}});
  Counters first = {{"inserts", 50}, {"held", 1}, {"actor/leases", 6}};
  carried.Apply(first);
  EXPECT_EQ(first, (Counters{{"inserts", 50},
                             {"held", 1},
                             {"actor/leases", 50},
                             {"rollout/prefix_tokens_reused", 5},
                             {"reward/failed/part/timeout", 3}}))
      << "one that has not happened again is there all the same; a mean is no counter";
}

// A learner that was started anew beside a store that had heard of all.
TEST(CarriedCountersTest, WhatIsStillKnownIsNotCountedTwice) {
  CarriedCounters carried;
  carried.Begin({{"actor/leases", 44.0}}, {{"actor/leases", 52}});
  Counters now = {{"actor/leases", 60}};
  carried.Apply(now);
  EXPECT_EQ(now, (Counters{{"actor/leases", 60}}));
}

TEST(CarriedCountersTest, ATotalNeverFalls) {
  CarriedCounters carried;
  Counters now = {{"actor/leases", 60}, {"queue", 5}};
  carried.Apply(now);
  now = {{"queue", 2}};  // the store is new and has heard of nobody yet
  carried.Apply(now);
  EXPECT_EQ(now, (Counters{{"actor/leases", 60}, {"queue", 2}}));
  now = {{"actor/leases", 64}, {"queue", 0}};
  carried.Apply(now);
  EXPECT_EQ(now, (Counters{{"actor/leases", 64}, {"queue", 0}}));
}

}  // namespace
}  // namespace plumb::run
