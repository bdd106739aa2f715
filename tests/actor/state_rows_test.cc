#include "actor/state_rows.h"

#include <gtest/gtest.h>

namespace plumb::actor {
namespace {

TEST(StateRowsTest, ARowIsCopiedWholeAndNoOther) {
  StateRows rows(Device::kCpu, 12, 4);
  const kernels::SequenceStates view = rows.view();
  ASSERT_EQ(view.stride, 3);
  for (int i = 0; i < 12; ++i) view.data[i] = static_cast<float>(i);
  rows.Copy(2, 0);
  const float want[] = {6, 7, 8, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  for (int i = 0; i < 12; ++i) EXPECT_EQ(view.data[i], want[i]) << i;
  EXPECT_DEATH(rows.Copy(4, 0), "row 4");
}

TEST(StateRowsTest, AModelWithoutStatesTakesNothing) {
  StateRows rows(Device::kCpu, 0, 2);
  EXPECT_EQ(rows.view().data, nullptr);
  rows.Copy(0, 1);
}

// Rows that nobody touches are never there.
TEST(StateRowsTest, MemoryIsTakenAsItIsTouched) {
  StateRows rows(Device::kCpu, int64_t{1} << 30, 64);  // 64 GiB
  rows.view().data[7] = 1;
  EXPECT_EQ(rows.view().data[7], 1);
}

}  // namespace
}  // namespace plumb::actor
