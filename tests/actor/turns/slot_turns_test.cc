#include "actor/turns/slot_turns.h"

#include <gtest/gtest.h>

namespace plumb::actor {
namespace {

TEST(SlotTurns, WhatIsAppendedIsFedButForItsLastToken) {
  SlotTurns turns;
  turns.EndTurn(5);
  const std::vector<int32_t> reply = {11, 12, 13};
  turns.Append(reply, /*n=*/5, /*last=*/9, /*at=*/24);
  EXPECT_EQ(turns.feed, (std::vector<int32_t>{9, 11, 12}));
  EXPECT_EQ(turns.position, 24);
  EXPECT_EQ(turns.next, 13);
  turns.EndTurn(10);
  EXPECT_EQ(turns.segments,
            (std::vector<Segment>{
                {Origin::kPolicy, 0, 5}, {Origin::kEnvironment, 5, 8}, {Origin::kPolicy, 8, 10}}));
  EXPECT_EQ(turns.turns, 2);
}

}  // namespace
}  // namespace plumb::actor
