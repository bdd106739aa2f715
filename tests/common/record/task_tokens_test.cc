#include "common/record/task_tokens.h"

#include <gtest/gtest.h>

#include <limits>

namespace plumb {
namespace {

TEST(TaskTokensTest, SayTheirTaskAndTheirPlace) {
  for (const int32_t task : {0, 1, 17, kMostTasks - 1}) {
    for (const int32_t place : {0, 5, kMostTaskTokens - 1}) {
      const int32_t token = TaskToken(task, place);
      EXPECT_TRUE(IsTaskToken(token));
      EXPECT_EQ(TaskOf(token), task);
      EXPECT_EQ(TaskPlace(token), place);
    }
  }
  EXPECT_LT(int64_t{kFirstTaskToken} + int64_t{kMostTasks} * kMostTaskTokens,
            std::numeric_limits<int32_t>::max());
  EXPECT_FALSE(IsTaskToken(kFirstTaskToken - 1));
}

TEST(TaskTokensTest, StandInFrontOfASequence) {
  EXPECT_EQ(TaskFront(3, 0), std::vector<int32_t>{TaskToken(3, 0)});
  std::vector<int32_t> row = TaskFront(3, 2);
  EXPECT_EQ(row, (std::vector<int32_t>{TaskToken(3, 0), TaskToken(3, 1)}));
  row.insert(row.end(), {7, 8, 9});
  EXPECT_EQ(LeadingTaskTokens(row), 2u);
  EXPECT_EQ(TaskOf(std::span<const int32_t>(row)), 3);
  const std::vector<int32_t> none = {7, 8};
  EXPECT_EQ(LeadingTaskTokens(none), 0u);
  EXPECT_EQ(TaskOf(std::span<const int32_t>(none)), -1);
  EXPECT_EQ(TaskOf(std::span<const int32_t>()), -1);
}

TEST(TaskTokensTest, AreNotCut) {
  std::vector<int32_t> row = {TaskToken(3, 0), 5, 6, 7, 8};
  CutFront(5, row);
  EXPECT_EQ(row.size(), 5u);
  CutFront(3, row);
  EXPECT_EQ(row, (std::vector<int32_t>{TaskToken(3, 0), 7, 8}));
  CutFront(1, row);
  EXPECT_EQ(row, (std::vector<int32_t>{TaskToken(3, 0), 8}));
  std::vector<int32_t> plain = {5, 6, 7};
  CutFront(2, plain);
  EXPECT_EQ(plain, (std::vector<int32_t>{6, 7}));
}

}  // namespace
}  // namespace plumb
