// learner/offline/curriculum.h: which rows a step takes.
#include "learner/offline/curriculum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "learner/offline/offline_objective.h"

namespace plumb::learner {
namespace {

TEST(Curriculum, TakesEachKindUntilItsEndAndThenAll) {
  const Curriculum curriculum(
      {{.name = "text", .end = 2, .rows = {0, 3, 6}}, {.name = "code", .end = 5, .rows = {1, 4}}});
  std::set<uint32_t> behind;
  for (int64_t step = 0; step < 12; ++step) {
    const auto rows = curriculum.Batch(8, 4, step, 7, true);
    ASSERT_EQ(rows.size(), 4u);
    const size_t phase = curriculum.PhaseOf(step);
    EXPECT_EQ(phase, step < 2 ? 0u : step < 5 ? 1u : 2u);
    for (const uint32_t row : rows) {
      if (phase == 2) {
        behind.insert(row);
        continue;
      }
      const auto& of = curriculum.phases()[phase].rows;
      EXPECT_NE(std::find(of.begin(), of.end(), row), of.end()) << step << " " << row;
    }
    EXPECT_EQ(rows, curriculum.Batch(8, 4, step, 7, true)) << "a step is the whole cursor";
  }
  EXPECT_EQ(behind.size(), 8u);
}

TEST(Curriculum, WithoutPhasesIsTheOrderWithoutOne) {
  for (int64_t step = 0; step < 5; ++step) {
    EXPECT_EQ(Curriculum().Batch(10, 3, step, 1, true), OfflineBatch(10, 3, step, 1, true));
    EXPECT_EQ(Curriculum().PhaseOf(step), 0u);
  }
}

TEST(Curriculum, GoesThroughAPhaseOfFewRowsAgain) {
  const Curriculum curriculum({{.name = "few", .end = 3, .rows = {5, 9}}});
  const auto rows = curriculum.Batch(10, 6, 0, 1, true);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 5u), 3);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 9u), 3);
}

}  // namespace
}  // namespace plumb::learner
