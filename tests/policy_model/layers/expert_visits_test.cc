// Rows on their way to experts of other ranks and back, with a group that is made of memory.
#include "policy_model/layers/expert_visits.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

namespace plumb::policy_model {
namespace {

// What all ranks bring lies here until all have taken theirs.
struct Hall {
  explicit Hall(size_t ranks) : parts(ranks, std::vector<std::vector<std::byte>>(ranks)) {}
  void Meet() {
    std::unique_lock lock(mutex);
    const int mine = turn;
    if (++came == static_cast<int>(parts.size())) {
      came = 0;
      ++turn;
      changed.notify_all();
    }
    changed.wait(lock, [&] { return turn != mine; });
  }
  std::mutex mutex;
  std::condition_variable changed;
  int came = 0, turn = 0;
  std::vector<std::vector<std::vector<std::byte>>> parts;  // [to][from]
};

class HallGroup : public ExpertGroup {
 public:
  HallGroup(Hall& hall, int rank) : hall_(hall), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hall_.parts.size()); }
  void Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                std::span<std::byte> in, std::span<const int64_t> from) override {
    const auto own = static_cast<size_t>(rank_);
    size_t at = 0;
    for (size_t r = 0; r < to.size(); at += static_cast<size_t>(to[r++])) {
      const auto part = out.subspan(at, static_cast<size_t>(to[r]));
      hall_.parts[r][own].assign(part.begin(), part.end());
    }
    EXPECT_EQ(at, out.size());
    hall_.Meet();
    at = 0;
    for (size_t r = 0; r < from.size(); at += static_cast<size_t>(from[r++])) {
      const auto& part = hall_.parts[own][r];
      ASSERT_EQ(static_cast<int64_t>(part.size()), from[r]) << "both ends mean the same";
      std::copy(part.begin(), part.end(), in.begin() + static_cast<std::ptrdiff_t>(at));
    }
    EXPECT_EQ(at, in.size());
    hall_.Meet();
  }

 private:
  Hall& hall_;
  const int rank_;
};

TEST(ExpertVisitsTest, RowsLieByExpertAndThenByRankAndComeBack) {
  // Rows of each rank for experts 0 to 3, two a rank; the last rank has none.
  constexpr int kRanks = 2;
  const std::vector<std::vector<int32_t>> begins = {{0, 1, 3, 3, 5}, {}};
  const std::vector<std::vector<int32_t>> expected = {{0, 1, 2}, {3, 4}};
  Hall hall(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      HallGroup group(hall, rank);
      ExpertVisits visits(&group, Stream(Device::kCpu));
      LayerVisits layer(2);
      const auto& begin = begins[static_cast<size_t>(rank)];
      for (int pass = 0; pass < 2; ++pass) {
        layer.Count(visits, begin.empty() ? nullptr : begin.data());
        std::vector<int32_t> own(static_cast<size_t>(layer.own_rows())),
            here(static_cast<size_t>(layer.rows()));
        for (size_t i = 0; i < own.size(); ++i) own[i] = static_cast<int32_t>(i);
        layer.Bring(visits, own.data(), 4, here.data());
        EXPECT_EQ(here, expected[static_cast<size_t>(rank)]);
        for (int32_t& row : here) row += 100;
        layer.TakeBack(visits, here.data(), 4, own.data());
        for (size_t i = 0; i < own.size(); ++i) EXPECT_EQ(own[i], static_cast<int32_t>(100 + i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ExpertVisitsTest, RowsOfOneExpertFollowTheRanks) {
  constexpr int kRanks = 3;
  Hall hall(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      HallGroup group(hall, rank);
      ExpertVisits visits(&group, Stream(Device::kCpu));
      LayerVisits layer(1);
      // Rank r has r + 1 rows for each of the three experts.
      std::vector<int32_t> begin = {0}, own, expected;
      for (int e = 0; e < kRanks; ++e) {
        begin.push_back(begin.back() + rank + 1);
        for (int k = 0; k <= rank; ++k) own.push_back(100 * rank + 10 * e + k);
      }
      layer.Count(visits, begin.data());
      std::vector<int32_t> here(static_cast<size_t>(layer.rows()));
      ASSERT_EQ(layer.rows(), 6);
      EXPECT_EQ(layer.begin()[1], 6);
      layer.Bring(visits, own.data(), 4, here.data());
      for (int from = 0; from < kRanks; ++from)
        for (int k = 0; k <= from; ++k) expected.push_back(100 * from + 10 * rank + k);
      EXPECT_EQ(here, expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace plumb::policy_model
