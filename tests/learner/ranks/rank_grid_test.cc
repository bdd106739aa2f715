// learner/ranks/rank_grid.h: who computes one model together, who shares out batches; groups of
// some ranks over the connections of all (Ranks::Among).
#include "learner/ranks/rank_grid.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/error.h"
#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

TEST(RankGridTest, NeighboursComputeTogether) {
  AsRanks(4, [](Ranks* ranks) {
    const RankGrid grid(ranks, 2, 4);
    const int own = ranks->rank();
    ASSERT_TRUE(grid.tensor() && grid.data());
    EXPECT_EQ(grid.tensor()->Gather(own), (own < 2 ? std::vector{0, 1} : std::vector{2, 3}));
    EXPECT_EQ(grid.data()->Gather(own), (own % 2 == 0 ? std::vector{0, 2} : std::vector{1, 3}));
    EXPECT_EQ(grid.all()->Gather(own), (std::vector{0, 1, 2, 3}));
    EXPECT_EQ(grid.tensor()->rank(), own % 2);
    EXPECT_EQ(grid.data()->rank(), own / 2);
    EXPECT_EQ(grid.data()->Share(std::to_string(own)), std::to_string(own % 2));
    std::vector<float> values(1000, static_cast<float>(own));
    grid.tensor()->AllReduce(values);
    EXPECT_EQ(values[999], own < 2 ? 1.0f : 5.0f);
    EXPECT_EQ(ranks->sent_bytes(), grid.tensor()->sent_bytes()) << "one count of all";
  });
}

TEST(RankGridTest, StagesLieApart) {
  AsRanks(4, [](Ranks* ranks) {
    const RankGrid grid(ranks, 1, 1, 2);
    const int own = ranks->rank();
    ASSERT_TRUE(grid.stages() && grid.data());
    EXPECT_EQ(grid.tensor(), nullptr);
    EXPECT_EQ(grid.stages()->Gather(own), (own % 2 == 0 ? std::vector{0, 2} : std::vector{1, 3}));
    EXPECT_EQ(grid.data()->Gather(own), (own < 2 ? std::vector{0, 1} : std::vector{2, 3}));
    EXPECT_EQ(grid.stages()->rank(), own / 2);
    const RankGrid alone(ranks, 1, 1, 4);
    EXPECT_EQ(alone.data(), nullptr);
    EXPECT_EQ(alone.stages()->rank(), own);
    EXPECT_THROW(RankGrid(ranks, 1, 1, 3), Error);
    EXPECT_THROW(RankGrid(ranks, 2, 4, 2), Error);
  });
}

TEST(RankGridTest, OneOfEachIsNone) {
  AsRanks(2, [](Ranks* ranks) {
    const RankGrid together(ranks, 2, 2), apart(ranks, 1, 2);
    EXPECT_EQ(together.data(), nullptr);
    EXPECT_EQ(together.tensor()->size(), 2);
    EXPECT_EQ(apart.data(), ranks);
    EXPECT_EQ(apart.tensor(), nullptr);
  });
  const RankGrid alone(nullptr, 1, 1);
  EXPECT_EQ(alone.data(), nullptr);
  EXPECT_EQ(alone.tensor(), nullptr);
}

TEST(RankGridTest, WhatDoesNotDivideIsRefused) {
  AsRanks(3, [](Ranks* ranks) { EXPECT_THROW(RankGrid(ranks, 2, 3), Error); });
  AsRanks(4, [](Ranks* ranks) {
    EXPECT_THROW(RankGrid(ranks, 4, 2), Error) << "not over machines";
    EXPECT_NO_THROW(RankGrid(ranks, 4, 1)) << "nobody said how many are here";
  });
}

// As the sums of parts do beside a pass that adds up its layers.
TEST(RankGridTest, TwoGroupsMaySumAtOnce) {
  AsRanks(4, [](Ranks* ranks) {
    const RankGrid grid(ranks, 2, 4);
    std::vector<float> layers(5000, 1.0f), gradients(7000, 1.0f);
    std::thread beside([&] {
      for (int i = 0; i < 20; ++i) grid.data()->AllReduce(gradients);
    });
    for (int i = 0; i < 20; ++i) grid.tensor()->AllReduce(layers);
    beside.join();
    EXPECT_EQ(layers[0], static_cast<float>(1 << 20));
    EXPECT_EQ(gradients[6999], static_cast<float>(1 << 20));
  });
}

TEST(RankGridTest, ErrorsNameRanksAsAllNumberThem) {
  const auto thrown = TryAsRanks(4, [](Ranks* ranks) {
    const RankGrid grid(ranks, 2, 4);
    grid.tensor()->CheckSame("the weights", ranks->rank() == 3 ? "other" : "same");
    if (ranks->rank() < 2) return;
    ADD_FAILURE() << "ranks 2 and 3 differ";
  });
  EXPECT_EQ(thrown[0], nullptr);
  try {
    ASSERT_NE(thrown[2], nullptr);
    std::rethrow_exception(thrown[2]);
  } catch (const RankLost& e) {
    EXPECT_EQ(e.rank(), 3);
    EXPECT_NE(std::string(e.what()).find("rank 3 differs in the weights: other, of rank 2 same"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
