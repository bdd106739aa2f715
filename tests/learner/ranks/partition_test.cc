#include "learner/ranks/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace plumb::learner {
namespace {

TEST(PartitionTest, EveryElementOfABucketIsKeptByOneRank) {
  const Partition partition({256, 256, 1000, 5000}, 3, 64);
  EXPECT_EQ(partition.elements(), 5000);
  std::vector<int> owner(5000, -1);
  for (int rank = 0; rank < 3; ++rank) {
    int64_t at = 0;
    const std::vector<Piece> kept = partition.KeptBy(rank);
    ASSERT_EQ(kept.size(), partition.buckets());
    for (size_t bucket = 0; bucket < kept.size(); ++bucket) {
      EXPECT_EQ(kept[bucket].at, at);
      at += kept[bucket].size();
      const Slice all = partition.Bucket(bucket), own = partition.Of(bucket, rank);
      EXPECT_EQ(kept[bucket].begin, own.begin);
      EXPECT_EQ(kept[bucket].end, own.end);
      EXPECT_GE(own.begin, all.begin);
      EXPECT_LE(own.end, all.end);
      for (int64_t i = own.begin; i < own.end; ++i) {
        EXPECT_EQ(owner[static_cast<size_t>(i)], -1);
        owner[static_cast<size_t>(i)] = rank;
      }
    }
  }
  EXPECT_EQ(std::count(owner.begin(), owner.end(), -1), 0);
  EXPECT_EQ(partition.Bucket(1).size(), 0);
}

}  // namespace
}  // namespace plumb::learner
