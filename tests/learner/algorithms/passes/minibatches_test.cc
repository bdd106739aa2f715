// learner/algorithms/passes/minibatches.h: every sample once a pass, in an order of its own.
#include "learner/algorithms/passes/minibatches.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

namespace plumb::learner {
namespace {

struct Seen {
  std::vector<int> order;
  std::vector<PassPlace> places;
  std::vector<size_t> sizes;
};

Seen Go(int n, const Passes& passes, int64_t step) {
  std::vector<int> samples(static_cast<size_t>(n));
  std::iota(samples.begin(), samples.end(), 0);
  Seen seen;
  ForEachMinibatch(std::span(samples), passes, step,
                   [&](std::span<int> some, const PassPlace& place) {
                     seen.order.insert(seen.order.end(), some.begin(), some.end());
                     seen.sizes.push_back(some.size());
                     seen.places.push_back(place);
                   });
  return seen;
}

TEST(Minibatches, EachPassTakesEverySampleOnceInAnOrderOfItsOwn) {
  const Passes passes{.epochs = 2, .minibatches = 3, .seed = 5, .address = 0x77};
  const Seen seen = Go(10, passes, 4);
  ASSERT_EQ(seen.order.size(), 20u);
  const std::vector<int> first(seen.order.begin(), seen.order.begin() + 10),
      second(seen.order.begin() + 10, seen.order.end());
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set(second.begin(), second.end()).size(), 10u);
  EXPECT_NE(first, second);
  EXPECT_EQ(seen.sizes, (std::vector<size_t>{3, 3, 4, 3, 3, 4}));
  EXPECT_EQ(Go(10, passes, 4).order, seen.order) << "equal arguments, equal order";
  EXPECT_NE(Go(10, passes, 5).order, seen.order);
  EXPECT_NE(Go(10, {.epochs = 2, .minibatches = 3, .seed = 6, .address = 0x77}, 4).order,
            seen.order);
  EXPECT_NE(Go(10, {.epochs = 2, .minibatches = 3, .seed = 5, .address = 0x78}, 4).order,
            seen.order);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(seen.places[i].first_pass, i < 3);
    EXPECT_EQ(seen.places[i].first_update, i == 0);
    EXPECT_EQ(seen.places[i].update, (4u * 2 + i / 3) * 3 + i % 3);
  }
}

TEST(Minibatches, OneKeepsTheOrderAndFewerSamplesThanMinibatchesLeaveSomeOut) {
  EXPECT_EQ(Go(3, {.epochs = 2, .minibatches = 1}, 0).order, (std::vector<int>{0, 1, 2, 0, 1, 2}));
  const Seen few = Go(1, {.epochs = 1, .minibatches = 4, .seed = 1}, 0);
  ASSERT_EQ(few.places.size(), 1u);
  EXPECT_EQ(few.places[0].update, 3u) << "those without a sample are counted";
  EXPECT_FALSE(few.places[0].first_update);
  EXPECT_TRUE(Go(0, {.epochs = 3, .minibatches = 2}, 0).order.empty());
}

TEST(Minibatches, ABatchIsFreshWhereAllThatHasAnswersIsOfTheStep) {
  TrajectoryGroup of_step, older, empty;
  of_step.policy.version = 3;
  of_step.trajectories.resize(1);
  older.policy.version = 2;
  older.trajectories.resize(1);
  empty.policy.version = 1;
  EXPECT_TRUE(AllOfVersion(std::vector{of_step, empty}, 3));
  EXPECT_FALSE(AllOfVersion(std::vector{of_step, older}, 3));
}

}  // namespace
}  // namespace plumb::learner
