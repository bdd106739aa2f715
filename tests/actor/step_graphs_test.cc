#include "actor/step_graphs.h"

#include <gtest/gtest.h>

namespace plumb::actor {
namespace {

TEST(StepGraphsTest, RowsAreFilledUpToFewNumbersAndByLittle) {
  std::vector<int32_t> numbers;
  for (int32_t rows = 1; rows <= 1024; ++rows) {
    const int32_t filled = StepGraphs::Rows(rows, 1024);
    EXPECT_GE(filled, rows);
    EXPECT_LT(filled, rows + (rows > 256 ? 32 : rows > 64 ? 16 : 8)) << rows;
    if (numbers.empty() || numbers.back() != filled) numbers.push_back(filled);
  }
  EXPECT_LE(numbers.size(), 64u) << "each is a record";
  EXPECT_EQ(StepGraphs::Rows(100, 100), 100) << "never more rows than slots";
  EXPECT_EQ(StepGraphs::Rows(1, 256), 1);
}

// Where nothing can be recorded, every step is done all the same, and once each.
TEST(StepGraphsTest, WhatCannotBeRecordedRunsAsItIs) {
  StepGraphs graphs(Device::kCpu);
  int done = 0;
  for (int i = 0; i < 5; ++i)
    graphs.Run([] { return StepKind{.rows = 1, .sampling = {}, .memory = {}}; }, [&] { ++done; });
  EXPECT_EQ(done, 5);
  EXPECT_EQ(graphs.replays(), 0u);
}

}  // namespace
}  // namespace plumb::actor
