#include "learner/update/shares/experts/expert_ranks.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

TEST(ExpertRanksTest, NeighboursShareExpertsOut) {
  AsRanks(4, [](Ranks* ranks) {
    ExpertRanks experts(ranks, 2, 4);
    ASSERT_TRUE(experts.there());
    EXPECT_EQ(experts.size(), 2);
    EXPECT_EQ(experts.rank(), ranks->rank() % 2);
    EXPECT_EQ(experts.alike()->size(), 2);
    EXPECT_EQ(experts.alike()->rank(), ranks->rank() / 2);
    ExpertRanks all(ranks, 4, 1);
    EXPECT_EQ(all.size(), 4);
    EXPECT_EQ(all.alike(), nullptr);
    ExpertRanks none(ranks, 1, 4);
    EXPECT_FALSE(none.there());
    EXPECT_EQ(none.exchange(), nullptr);
    for (const auto& [ep, here] : {std::pair(3, 4), {2, 3}})
      EXPECT_THROW(ExpertRanks(ranks, ep, here), Error) << ep;
  });
}

// Parts of any sizes, also none, and what went out is counted without this rank's own.
TEST(ExpertRanksTest, EverybodySendsToEverybody) {
  AsRanks(4, [](Ranks* ranks) {
    ExpertRanks experts(ranks, 4, 4);
    std::vector<std::byte> out, in, expected;
    std::vector<int64_t> to, from;
    for (int peer = 0; peer < 4; ++peer) {
      const int64_t goes = experts.rank() * peer, comes = peer * experts.rank();
      to.push_back(goes);
      from.push_back(comes);
      out.insert(out.end(), static_cast<size_t>(goes), std::byte(16 * experts.rank() + peer));
      expected.insert(expected.end(), static_cast<size_t>(comes),
                      std::byte(16 * peer + experts.rank()));
    }
    in.resize(expected.size());
    const int64_t before = ranks->sent_bytes();
    experts.Exchange(out, to, in, from);
    EXPECT_EQ(in, expected);
    const ExpertRanks::Traffic traffic = experts.Take();
    EXPECT_EQ(traffic.bytes, experts.rank() * (6 - experts.rank()));
    EXPECT_EQ(ranks->sent_bytes() - before, traffic.bytes);
    EXPECT_GT(traffic.seconds, 0);
    EXPECT_EQ(experts.Take().bytes, 0);
  });
}

}  // namespace
}  // namespace plumb::learner
