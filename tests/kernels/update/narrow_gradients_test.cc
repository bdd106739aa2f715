#include "kernels/update/narrow_gradients.h"

#include "kernels/update/narrow_sum.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(NarrowGradientsTest);

struct Sums {
  std::vector<float> sum, room;
};

// Rounds of gradients, one joining after the other.
Sums Join(Device device, const std::vector<std::vector<float>>& rounds, size_t skip = 0,
          uint64_t seed = 5) {
  const size_t n = rounds.front().size() - skip;
  Tensor sum({device, DType::kBFloat16}, std::vector<float>(n + skip, 0.0f));
  Sums out;
  for (uint32_t draw = 0; draw < rounds.size(); ++draw) {
    Array<float> room(device, rounds[draw]);
    Call({.stream = TestStream(device)},
         NarrowGradients{.room = room.data() + skip,
                         .sum = static_cast<BFloat16*>(sum.data()) + skip,
                         .n = static_cast<int64_t>(n),
                         .seed = seed,
                         .draw = draw,
                         .first = 128});
    out.room = room.Host();
  }
  out.sum = sum.Host();
  return out;
}

TEST_P(NarrowGradientsTest, TheFirstIsRoundedToTheNearest) {
  for (const size_t n : {1, 7, 8, 9, 1000, 30001}) {
    const auto g = Normal(n, 2);
    const Sums seen = Join(device(), {g});
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(seen.sum[i], ToFloat(ToBFloat16(g[i]))) << i;
    EXPECT_EQ(seen.room, g) << "only read";
  }
}

// The same bits on every device and for any number of threads, wherever memory begins.
TEST_P(NarrowGradientsTest, BitsAreThoseOfTheCpu) {
  for (const size_t skip : {0, 1, 3}) {
    for (const size_t n : {1, 8, 15, 4096, 30001}) {
      std::vector<std::vector<float>> rounds;
      for (uint64_t k = 0; k < 4; ++k) rounds.push_back(Normal(n + skip, k));
      Sums wanted;
      WithThreads([&](int threads) {
        const Sums on_cpu = Join(Device::kCpu, rounds, skip);
        if (threads > 1) ExpectSameBits(on_cpu.sum, wanted.sum, "threads");
        wanted = on_cpu;
      });
      const Sums seen = Join(device(), rounds, skip);
      ExpectSameBits(seen.sum, wanted.sum, "sums");
      ExpectSameBits(seen.room, wanted.room, "rooms");
    }
  }
}

// What is a hundredth of the distance of two neighbours joins in the mean; to the nearest it would
// be lost each time.
TEST_P(NarrowGradientsTest, ManySmallOnesJoinInTheMean) {
  constexpr size_t kElements = 4096;
  constexpr int kRounds = 200;
  const float small = 1.0f / 128 / 100;
  std::vector<std::vector<float>> rounds = {std::vector<float>(kElements, 1.0f)};
  for (int k = 0; k < kRounds; ++k) rounds.emplace_back(kElements, small);
  const Sums seen = Join(device(), rounds);
  double mean = 0;
  for (const float s : seen.sum) mean += static_cast<double>(s) / kElements;
  const double wanted = 1 + kRounds * static_cast<double>(small);
  // A walk of kRounds roundings, of each the deviation at most half of 1/128.
  EXPECT_NEAR(mean, wanted, 5 * std::sqrt(kRounds / static_cast<double>(kElements)) / 256);
  EXPECT_GT(wanted, 1.015);
  EXPECT_NE(seen.sum, Join(device(), rounds, 0, 6).sum) << "the seed says the roundings";
}

TEST_P(NarrowGradientsTest, WhatIsNotFiniteShowsAndWhatIsStays) {
  std::vector<float> bad(16, 1.0f);
  bad[2] = NAN;
  bad[3] = INFINITY;
  bad[9] = 3.38e38f;
  Sums seen = Join(device(), {bad});
  EXPECT_TRUE(std::isnan(seen.sum[2]));
  EXPECT_TRUE(std::isinf(seen.sum[3]));
  EXPECT_TRUE(std::isfinite(seen.sum[9]));
  seen = Join(device(), {std::vector<float>(16, 1.0f), bad});
  EXPECT_TRUE(std::isnan(seen.sum[2]));
  EXPECT_TRUE(std::isinf(seen.sum[3]));
  EXPECT_TRUE(std::isfinite(seen.sum[9]));
}

TEST_P(NarrowGradientsTest, NothingMoreLeavesEveryBit) {
  const auto g = Normal(1000, 2);
  EXPECT_EQ(Join(device(), {g}).sum, Join(device(), {g, std::vector<float>(1000, 0.0f)}).sum);
}

TEST(NarrowSumTest, OneElement) {
  EXPECT_EQ(ToFloat(NarrowSum(ToBFloat16(-0.0f), 0.3f, 0xFFFF)), ToFloat(ToBFloat16(0.3f)));
  EXPECT_EQ(ToFloat(NarrowSum(ToBFloat16(1.0f), 0.001f, 0xFFFF)), 1.0078125f) << "up";
  EXPECT_EQ(ToFloat(NarrowSum(ToBFloat16(1.0f), 0.001f, 0)), 1.0f) << "down";
  EXPECT_EQ(NarrowDraw(1, 16, 2).x[0], NarrowDraw(1, 23, 2).x[0]);
  EXPECT_NE(NarrowDraw(1, 16, 2).x[0], NarrowDraw(1, 24, 2).x[0]);
}

}  // namespace
}  // namespace plumb::kernels
