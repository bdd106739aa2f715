// learner/ranks/gradient_wire.h: what arrives of numbers, in how many bytes; and sums by it, whose
// rounding is made up for (learner/ranks/ranks.h).
#include "learner/ranks/gradient_wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/base/rng.h"
#include "learner/ranks/ranks.h"
#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

std::vector<float> Numbers(uint64_t seed, size_t n) {
  RandomStream random(seed, 3);
  std::vector<float> out;
  for (size_t i = 0; i < n; ++i)
    out.push_back((static_cast<float>(random.NextBelow(1 << 20)) / (1 << 19) - 1.0f) *
                  (i % 300 == 7 ? 50.0f : 1.0f));
  return out;
}

std::vector<float> ThereAndBack(Wire wire, const std::vector<float>& numbers) {
  std::vector<std::byte> bytes(
      static_cast<size_t>(WireBytes(wire, static_cast<int64_t>(numbers.size()))));
  WriteWire(wire, numbers, bytes);
  std::vector<float> out(numbers.size());
  ReadWire(wire, bytes, out);
  return out;
}

TEST(GradientWire, TakesItsBytesAndRoundsWithinItsBound) {
  EXPECT_EQ(WireBytes(Wire::kFloat32, 1000), 4000);
  EXPECT_EQ(WireBytes(Wire::kBFloat16, 1000), 2000);
  EXPECT_EQ(WireBytes(Wire::kInt8, 1000), 1000 + 4 * 4);
  EXPECT_EQ(WireBytes(Wire::kInt8, 0), 0);
  for (const size_t n : {size_t{0}, size_t{1}, size_t{256}, size_t{257}, size_t{3000}}) {
    const std::vector<float> numbers = Numbers(n + 1, n);
    EXPECT_EQ(ThereAndBack(Wire::kFloat32, numbers), numbers);
    const auto halves = ThereAndBack(Wire::kBFloat16, numbers),
               bytes = ThereAndBack(Wire::kInt8, numbers);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_LE(std::abs(halves[i] - numbers[i]), std::abs(numbers[i]) / 256);
      float largest = 0;
      const size_t block = i / kWireBlock * kWireBlock;
      for (size_t k = block; k < std::min(n, block + kWireBlock); ++k)
        largest = std::max(largest, std::abs(numbers[k]));
      EXPECT_LE(std::abs(bytes[i] - numbers[i]), largest / 127 * 0.5001f);
    }
  }
}

TEST(GradientWire, NothingAndTheSmallestStayWhatTheyAre) {
  const std::vector<float> zeros(300, 0.0f);
  EXPECT_EQ(ThereAndBack(Wire::kInt8, zeros), zeros);
  const std::vector<float> tiny(300, std::numeric_limits<float>::denorm_min());
  for (const float x : ThereAndBack(Wire::kInt8, tiny)) EXPECT_TRUE(std::isfinite(x));
}

TEST(GradientWire, WhatIsNotFiniteIsSeen) {
  for (const Wire wire : {Wire::kFloat32, Wire::kBFloat16, Wire::kInt8}) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> numbers(300, 1.0f);
      numbers[270] = bad;
      const auto seen = ThereAndBack(wire, numbers);
      EXPECT_FALSE(std::isfinite(seen[270]));
      EXPECT_EQ(seen[3], 1.0f);
    }
  }
}

// What one step lost comes with the next ones: the mean of many sums is the sum.
TEST(GradientWire, SumsMakeUpForWhatRoundingLost) {
  constexpr size_t kMany = 5000;
  constexpr int kSteps = 40;
  for (const Wire wire : {Wire::kBFloat16, Wire::kInt8}) {
    for (const int size : {2, 3}) {
      std::vector<float> exact(kMany);
      for (int rank = 0; rank < size; ++rank) {
        const auto own = Numbers(static_cast<uint64_t>(rank) + 1, kMany);
        for (size_t i = 0; i < kMany; ++i) exact[i] += own[i];
      }
      std::vector<std::vector<float>> last(static_cast<size_t>(size));
      AsRanks(size, [&](Ranks* ranks) {
        const auto own = Numbers(static_cast<uint64_t>(ranks->rank()) + 1, kMany);
        std::vector<float> residual(kMany);
        std::vector<double> total(kMany);
        double once = 0, mean = 0;
        for (int step = 0; step < kSteps; ++step) {
          std::vector<float> values = own;
          ranks->AllReduce(values, wire, residual);
          for (size_t i = 0; i < kMany; ++i) {
            total[i] += static_cast<double>(values[i]);
            if (step == 0)
              once = std::max(once, static_cast<double>(std::abs(values[i] - exact[i])));
          }
          last[static_cast<size_t>(ranks->rank())] = values;
        }
        for (size_t i = 0; i < kMany; ++i)
          mean = std::max(mean, std::abs(total[i] / kSteps - static_cast<double>(exact[i])));
        EXPECT_GT(once, 1e-4) << "a wire that rounds";
        EXPECT_LT(mean, 2.5 * once / kSteps);
        // The owner's part alone, exact but for what the others sent.
        std::vector<float> part = own, left(kMany);
        ranks->ReduceScatter(part, 64, wire, left);
        const Slice mine = SliceOf(kMany, ranks->rank(), size, 64);
        for (int64_t i = mine.begin; i < mine.end; ++i)
          EXPECT_NEAR(part[static_cast<size_t>(i)], exact[static_cast<size_t>(i)], 1.0f);
      });
      for (const auto& each : last) EXPECT_EQ(each, last[0]) << "equal bits on all ranks";
    }
  }
}

TEST(GradientWire, SendsLess) {
  constexpr int64_t kElements = 4 * 2 * 256 * 16;
  for (const Wire wire : {Wire::kFloat32, Wire::kBFloat16, Wire::kInt8}) {
    AsRanks(4, [&](Ranks* ranks) {
      std::vector<float> values(kElements, 1.0f), residual;
      if (wire != Wire::kFloat32) residual.resize(kElements);
      const int64_t before = ranks->sent_bytes();
      ranks->AllReduce(values, wire, residual);
      EXPECT_EQ(ranks->sent_bytes() - before, 2 * 3 * WireBytes(wire, kElements / 4));
    });
  }
}

}  // namespace
}  // namespace plumb::learner
