#include "replay/table/ready_queue.h"

#include <gtest/gtest.h>

namespace plumb::replay {
namespace {

using Ids = std::vector<uint64_t>;

ReadyQueue::Group Came(uint64_t arrival, int64_t version = 0) {
  return {.arrival = arrival, .oldest_version = version, .policy = {version, "digest"}};
}

TEST(ReadyQueue, GivesWhatCameFirstAndOfEqualArrivalsTheLowerLease) {
  ReadyQueue queue;
  queue.Add(7, Came(1));
  queue.Add(3, Came(4));
  queue.Add(9, Came(2));
  queue.Add(2, Came(4));
  EXPECT_EQ(queue.First(3), (Ids{7, 9, 2}));
  EXPECT_EQ(queue.First(9), (Ids{7, 9, 2, 3})) << "all there are";
  queue.Add(9, Came(8));
  EXPECT_EQ(queue.First(2), (Ids{7, 9})) << "what is there stays as it came";
}

TEST(ReadyQueue, WhatAStepTookNeverComesBack) {
  ReadyQueue queue;
  for (const uint64_t id : {0, 1, 2, 5}) queue.Add(id, Came(10 - id));
  queue.Take(Ids{5, 1, 0});
  EXPECT_EQ(queue.First(9), (Ids{2}));
  queue.Add(5, Came(1));
  queue.Add(0, Came(1));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_TRUE(queue.IsTaken(0) && queue.IsTaken(1) && queue.IsTaken(5));
  EXPECT_FALSE(queue.IsTaken(2) || queue.IsTaken(3));
  queue.SetTakenBefore(4);
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_TRUE(queue.IsTaken(3) && queue.IsTaken(5));
  EXPECT_FALSE(queue.IsTaken(4));
}

TEST(ReadyQueue, WhatIsForgottenMayComeAgain) {
  ReadyQueue queue;
  queue.Add(1, Came(1, 3));
  queue.Add(0, Came(2, 5));
  const Ids old =
      queue.Where([](const ReadyQueue::Group& group) { return group.oldest_version < 4; });
  EXPECT_EQ(old, (Ids{1}));
  for (const uint64_t id : old) queue.Forget(id);
  EXPECT_EQ(queue.First(9), (Ids{0}));
  queue.Add(1, Came(3, 6));
  EXPECT_EQ(queue.First(9), (Ids{0, 1}));
}

}  // namespace
}  // namespace plumb::replay
