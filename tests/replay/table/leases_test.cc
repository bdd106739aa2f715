#include "replay/table/leases.h"

#include <numeric>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(PromptOrderTest, IsAPureFunctionAndEveryPassUsesEachRowOnce) {
  const PromptOrder first(7, 101, true), second(7, 101, true), other(8, 101, true);
  std::vector<int> seen(101, 0);
  int same = 0, same_as_first_pass = 0;
  for (uint64_t id = 0; id < 202; ++id) {
    ++seen[first.RowOf(id)];
    same += first.RowOf(id) == other.RowOf(id);
    if (id >= 101) same_as_first_pass += first.RowOf(id) == first.RowOf(id - 101);
  }
  for (const int n : seen) EXPECT_EQ(n, 2);
  EXPECT_LT(same, 20);                // another seed is another order
  EXPECT_LT(same_as_first_pass, 20);  // and so is another pass
  // Asked in any order, and far ahead, the answers are the same.
  for (const uint64_t id : {5000u, 3u, 250u, 999u, 3u, 120u})
    EXPECT_EQ(first.RowOf(id), second.RowOf(id)) << id;
}

TEST(PromptOrderTest, GoldenRows) {
  // A change here changes which prompts every stored run continues with: it needs a new store
  // format.
  const PromptOrder order(1, 10, true);
  std::vector<uint64_t> rows;
  for (uint64_t id = 0; id < 20; ++id) rows.push_back(order.RowOf(id));
  EXPECT_EQ(rows,
            (std::vector<uint64_t>{6, 1, 7, 4, 9, 8, 0, 2, 3, 5, 9, 2, 8, 3, 4, 7, 6, 1, 5, 0}));
  EXPECT_EQ(PromptOrder(1, 10, false).RowOf(13), 3u);
}

TEST(EvalLeaseTest, BlocksDoNotMeet) {
  EXPECT_EQ(EvalLeaseBase(0, 1), uint64_t{1} << 20);
  EXPECT_GE(EvalLeaseBase(3, 2), EvalLeaseBase(3, 1) + kMaxEvalPrompts);
  EXPECT_GE(EvalLeaseBase(4, 1), EvalLeaseBase(3, kMaxEvalSamples) + kMaxEvalPrompts);
  const EvalLease parts = ParseEvalLease(EvalLeaseBase(12, 5) + 77);
  EXPECT_EQ(parts.version, 12);
  EXPECT_EQ(parts.samples, 5);
  EXPECT_EQ(parts.row, 77u);
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "eval.samples", EvalLeaseBase(0, 5000));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "version -1", EvalLeaseBase(-1, 1));
}

TEST(LeaseBookTest, HandsOutLowestFirstAndExpires) {
  LeaseBook book(1000);
  book.Open(0, 6);
  auto taken = book.HandOut(3, 4, "a", 10);
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(taken[2].lease_id, 2u);
  EXPECT_EQ(book.HandOut(9, 4, "b", 20).size(), 1u);  // the limit
  EXPECT_FALSE(book.HasFree(4));
  EXPECT_TRUE(book.Expire(1009).empty());
  EXPECT_EQ(book.Expire(1010).size(), 3u);
  taken = book.HandOut(1, 4, "b", 1010);
  EXPECT_EQ(taken[0].lease_id, 0u);
  EXPECT_EQ(taken[0].attempt, 1u);
}

TEST(LeaseBookTest, AnOldAttemptCannotReleaseTheNewOne) {
  LeaseBook book(1000);
  book.Open(0, 1);
  book.HandOut(1, 9, "a", 0);
  book.Expire(5000);
  book.HandOut(1, 9, "b", 5000);
  EXPECT_FALSE(book.Release(0, 0));
  EXPECT_EQ(book.FindHeld(0)->holder, "b");
  EXPECT_TRUE(book.Release(0, 1));
  EXPECT_FALSE(book.Release(0, 1));
}

TEST(LeaseBookTest, WhatIsDoneIsNeverHandedOutAgain) {
  LeaseBook book(1000);
  book.Open(0, 4);
  book.HandOut(4, 9, "a", 0);
  book.Complete(2);
  book.Expire(5000);
  book.Complete(0);  // answered late: from free
  book.Open(0, 4);
  const auto again = book.HandOut(9, 9, "b", 5000);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].lease_id, 1u);
  EXPECT_EQ(again[1].lease_id, 3u);
  EXPECT_TRUE(book.IsDone(0) && book.IsDone(2) && !book.IsDone(1));
  EXPECT_EQ(book.ReleaseHolder("b"), 2);
  book.SetDoneBefore(3);
  EXPECT_TRUE(book.IsDone(1));
  EXPECT_EQ(book.HandOut(9, 9, "c", 0).size(), 1u);
}

TEST(LeaseBookTest, RestoresAttemptsAndCountsRequeues) {
  LeaseBook book(1000);
  book.Restore(0, true, 0, 0);
  book.Restore(1, false, 4, 2);
  book.Open(0, 3);
  const auto taken = book.HandOut(9, 9, "a", 0);
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].lease_id, 1u);
  EXPECT_EQ(taken[0].attempt, 5u);
  EXPECT_EQ(taken[0].requeues, 2u);
  EXPECT_EQ(book.Requeue(1), 3u);
  EXPECT_EQ(book.HandOut(1, 9, "a", 0)[0].attempt, 6u);
}

TEST(LeaseBookTest, RenewedLeasesRunOutLater) {
  LeaseBook book(1000);
  book.Open(0, 3);
  book.HandOut(2, 9, "a", 0);
  book.HandOut(1, 9, "b", 0);
  EXPECT_EQ(book.RenewHolder("a", 900), 2);
  EXPECT_EQ(book.HeldBy("a"), 2);
  EXPECT_EQ(book.Expire(1500).size(), 1u);
  EXPECT_EQ(book.RenewHolder("b", 1500), 0);
  EXPECT_EQ(book.Unanswered(9), 3u);
  EXPECT_EQ(book.Unanswered(2), 2u) << "the free one is lease 2";
  EXPECT_EQ(book.Expire(1900).size(), 2u);
}

TEST(LeaseBookTest, ReopenedLeasesAreFreeOnceTheyAreOpenedAgain) {
  LeaseBook book(1000);
  book.Open(0, 6);
  book.HandOut(6, 9, "a", 0);
  for (uint64_t id = 0; id < 5; ++id) book.Complete(id);
  book.Reopen(2, 7);
  EXPECT_TRUE(book.IsDone(1) && !book.IsDone(2) && book.IsDone(3) && book.IsDone(4));
  book.Open(0, 6);
  const auto again = book.HandOut(9, 9, "b", 0);
  ASSERT_EQ(again.size(), 1u) << "5 is still out";
  EXPECT_EQ(again[0].lease_id, 2u);
  EXPECT_EQ(again[0].attempt, 8u);
  EXPECT_EQ(again[0].requeues, 0u);
  book.Complete(2);
  book.Complete(5);
  EXPECT_TRUE(book.IsDone(5));
  book.SetDoneBefore(4);
  book.Reopen(3, 0);  // trimmed: no answer is needed any more
  EXPECT_TRUE(book.IsDone(3));
}

}  // namespace
}  // namespace plumb::replay
