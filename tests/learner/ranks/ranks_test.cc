// learner/ranks/ranks.h and rank_mesh.h: what every rank has after a call, how much was sent, and
// what is said of a rank that is late, gone or elsewhere.
#include "learner/ranks/ranks.h"

#include <gtest/gtest.h>

#include <atomic>

#include "common/base/rng.h"
#include "learner/ranks/rank_mesh.h"
#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

std::vector<float> Values(int rank, size_t n) {
  RandomStream random(static_cast<uint64_t>(rank) + 1, 3);
  std::vector<float> out;
  for (size_t i = 0; i < n; ++i)
    out.push_back(static_cast<float>(random.NextBelow(1 << 20)) / 977.0f - 500.0f);
  return out;
}

// In the order of the ranks, in float.
std::vector<float> SumOf(int size, size_t n) {
  std::vector<float> sum = Values(0, n);
  for (int rank = 1; rank < size; ++rank) {
    const auto more = Values(rank, n);
    for (size_t i = 0; i < n; ++i) sum[i] += more[i];
  }
  return sum;
}

std::string MessageOf(const std::exception_ptr& thrown, int* rank = nullptr) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const RankLost& e) {
    if (rank) *rank = e.rank();
    return e.what();
  } catch (const std::exception& e) {
    return std::string("not a RankLost: ") + e.what();
  }
  return "nothing";
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(SliceOf, PartsAreWholeAndWithoutGaps) {
  for (const int64_t n : {0, 1, 64, 1000, 4097}) {
    for (const int size : {1, 2, 3, 4, 7}) {
      int64_t at = 0;
      for (int rank = 0; rank < size; ++rank) {
        const Slice slice = SliceOf(n, rank, size, 64);
        EXPECT_EQ(slice.begin, at);
        EXPECT_TRUE(slice.begin % 64 == 0 || slice.size() == 0);
        at = slice.end;
      }
      EXPECT_EQ(at, n);
    }
  }
}

TEST(Ranks, SumsHaveTheBitsOfASumInTheOrderOfTheRanks) {
  constexpr size_t kMany = (size_t{1} << 21) + 12345;  // several pieces
  for (const int size : {2, 3, 4}) {
    for (const size_t n : {size_t{1}, size_t{1000}, kMany}) {
      const std::vector<float> sum = SumOf(size, n);
      AsRanks(size, [&](Ranks* ranks) {
        const std::vector<float> own = Values(ranks->rank(), n);
        std::vector<float> all = own;
        ranks->AllReduce(all);
        EXPECT_EQ(all, sum) << size << " ranks, " << n;
        std::vector<float> part = own;
        ranks->ReduceScatter(part, 64);
        const Slice mine = SliceOf(static_cast<int64_t>(n), ranks->rank(), size, 64);
        for (int64_t i = mine.begin; i < mine.end; ++i)
          ASSERT_EQ(part[static_cast<size_t>(i)], sum[static_cast<size_t>(i)]);
        ranks->AllGather(std::as_writable_bytes(std::span(part)), sizeof(float), 64);
        EXPECT_EQ(part, sum);
      });
    }
  }
}

TEST(Ranks, BytesSentAreThoseOfTheTheory) {
  constexpr int64_t kElements = 3 * 4 * 4096;
  for (const int size : {2, 3, 4}) {
    AsRanks(size, [&](Ranks* ranks) {
      std::vector<float> values(kElements, 1.0f);
      const int64_t share = kElements * 4 * (size - 1) / size;
      int64_t before = ranks->sent_bytes();
      ranks->AllReduce(values);
      EXPECT_EQ(ranks->sent_bytes() - before, 2 * share);
      before = ranks->sent_bytes();
      ranks->ReduceScatter(values, 64);
      EXPECT_EQ(ranks->sent_bytes() - before, share);
      before = ranks->sent_bytes();
      ranks->AllGather(std::as_writable_bytes(std::span(values)), sizeof(float), 64);
      EXPECT_EQ(ranks->sent_bytes() - before, share);
    });
  }
}

TEST(Ranks, SmallCallsGiveAllRanksTheSame) {
  AsRanks(3, [](Ranks* ranks) {
    const std::string long_text(3 << 20, 'x');
    EXPECT_EQ(ranks->Share(ranks->first() ? "from 0" : "ignored"), "from 0");
    EXPECT_EQ(ranks->Share(ranks->first() ? "" : "ignored"), "");
    EXPECT_EQ(ranks->Share(ranks->first() ? long_text : ""), long_text);
    EXPECT_EQ(ranks->Gather(10 + ranks->rank()), (std::vector<int>{10, 11, 12}));
    const std::vector<size_t> sizes = {2, 0, 1};
    std::vector<float> own(sizes[static_cast<size_t>(ranks->rank())],
                           static_cast<float>(ranks->rank())),
        all;
    ranks->Gather(std::span<const float>(own), sizes, all);
    EXPECT_EQ(all, (std::vector<float>{0, 0, 2}));
    EXPECT_EQ(ranks->Sum(0.1 * ranks->rank()), 0.0 + 0.1 + 0.2);
    EXPECT_TRUE(ranks->Any(ranks->rank() == 2));
    EXPECT_FALSE(ranks->Any(false));
    ranks->Barrier();
    EXPECT_NO_THROW(ranks->CheckSame("the weights", "abc"));
  });
}

TEST(Ranks, TheOneThatDiffersIsNamed) {
  const auto thrown = TryAsRanks(3, [](Ranks* ranks) {
    ranks->CheckSame("the weights after step 4", ranks->rank() == 1 ? "bad" : "good");
  });
  for (const auto& each : thrown) {
    int rank = -1;
    const std::string message = MessageOf(each, &rank);
    EXPECT_EQ(rank, 1);
    EXPECT_TRUE(
        Has(message, "rank 1 differs in the weights after step 4: bad, of ranks 0 and 2 good"))
        << message;
  }
}

TEST(Ranks, OneThatEndsIsNamedWithItsReason) {
  const auto thrown = TryAsRanks(3, [](Ranks* ranks) {
    ranks->Barrier();
    if (ranks->rank() == 2) throw Error(ErrorCode::kNoSpace, "the disk is full");
    std::vector<float> values(1 << 20);
    ranks->AllReduce(values);
  });
  // Also the one whose neighbour went in the middle of a message to it.
  for (const int rank : {0, 1}) {
    const std::string message = MessageOf(thrown[static_cast<size_t>(rank)]);
    EXPECT_TRUE(Has(message, "ended: ") && Has(message, "the disk is full")) << message;
  }
}

TEST(Ranks, OneThatIsGoneIsNamed) {
  const auto thrown = TryAsRanks(2, [](Ranks* ranks) {
    ranks->Barrier();
    if (ranks->rank() == 1) return;  // its connections end
    std::vector<float> values(1 << 20);
    ranks->AllReduce(values);
  });
  int rank = -1;
  EXPECT_TRUE(Has(MessageOf(thrown[0], &rank), "rank 1 of 2 is gone")) << MessageOf(thrown[0]);
  EXPECT_EQ(rank, 1);
}

TEST(Ranks, OneThatHangsIsNamedAtTheDeadline) {
  std::atomic<bool> waited{false};
  const auto begin = std::chrono::steady_clock::now();
  const auto thrown = TryAsRanks(
      3,
      [&](Ranks* ranks) {
        ranks->Barrier();
        if (ranks->rank() == 1) {
          while (!waited) std::this_thread::sleep_for(std::chrono::milliseconds(10));
          return;
        }
        try {
          std::vector<float> values(4096);
          ranks->AllReduce(values);
        } catch (...) {
          waited = true;
          throw;
        }
      },
      std::chrono::milliseconds(600));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  const std::string first = MessageOf(thrown[0]), last = MessageOf(thrown[2]);
  EXPECT_TRUE(Has(first, "for rank 1 of 3") || Has(last, "for rank 1 of 3")) << first << last;
}

TEST(Ranks, OneThatIsElsewhereIsNoticed) {
  const auto thrown = TryAsRanks(2, [](Ranks* ranks) {
    std::vector<float> values(ranks->first() ? 100 : 200);
    ranks->AllReduce(values);
  });
  EXPECT_TRUE(Has(MessageOf(thrown[0]), "rank 1 is elsewhere") ||
              Has(MessageOf(thrown[1]), "rank 0 is elsewhere"))
      << MessageOf(thrown[0]) << MessageOf(thrown[1]);
}

TEST(RankMesh, WhoDoesNotComeIsNamed) {
  const testing::TempFolder folder;
  try {
    JoinInFolder(folder.path(), 0, 3, std::chrono::milliseconds(200));
    FAIL();
  } catch (const RankLost& e) {
    EXPECT_TRUE(Has(e.what(), "of 3 ranks these did not come in time: 1, 2")) << e.what();
  }
  try {
    JoinInFolder(folder.path(), 1, 2, std::chrono::milliseconds(200));
    FAIL();
  } catch (const RankLost& e) {
    EXPECT_TRUE(Has(e.what(), "rank 0 of 2 did not answer at ")) << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
