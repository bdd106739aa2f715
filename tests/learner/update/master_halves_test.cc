#include "learner/update/master_halves.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "common/base/rng.h"

namespace plumb::learner {
namespace {

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

std::vector<uint32_t> BitsOf(const std::vector<float>& values) {
  std::vector<uint32_t> out;
  for (const float v : values) out.push_back(std::bit_cast<uint32_t>(v));
  return out;
}

std::vector<BFloat16> Rounded(const std::vector<float>& masters) {
  std::vector<BFloat16> out;
  for (const float v : masters) out.push_back(ToBFloat16(v));
  return out;
}

// Splits, joins, and expects the same bits. Returns the ties.
std::vector<int64_t> There(const std::vector<float>& masters) {
  std::vector<uint16_t> low(masters.size());
  std::vector<int64_t> ties;
  EXPECT_TRUE(SplitMasters(masters, Rounded(masters), 0, low, ties));
  std::vector<float> back(masters.size());
  EXPECT_TRUE(JoinMasters(Rounded(masters), low, ties, back));
  EXPECT_EQ(BitsOf(back), BitsOf(masters));
  return ties;
}

TEST(MasterHalvesTest, EveryLowerHalfBesideEvenOddAndExtremeUpperOnes) {
  // Zeros, the smallest and largest numbers, both signs, a carry into the exponent, infinity.
  for (const uint32_t upper : {0x0000u, 0x0001u, 0x007Fu, 0x0080u, 0x3F80u, 0x3F81u, 0x3FFFu,
                               0x7F7Eu, 0x8000u, 0x8001u, 0xBF80u, 0xBFFFu, 0xFF7Eu}) {
    std::vector<float> masters;
    for (uint32_t low = 0; low < 0x10000; ++low) masters.push_back(FromBits(upper << 16 | low));
    const std::vector<int64_t> ties = There(masters);
    EXPECT_EQ(ties, upper % 2 == 0 ? std::vector<int64_t>{0x8000} : std::vector<int64_t>{})
        << upper << ": of two neighbours in the middle the even one is taken";
  }
  There({std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()});
}

TEST(MasterHalvesTest, AMillionDrawnOnes) {
  RandomStream random(3, 1);
  std::vector<float> masters;
  for (int i = 0; i < 1'000'000; ++i) masters.push_back(0.02f * random.NextNormal());
  EXPECT_LT(There(masters).size(), 40u) << "one in 130,000";
}

TEST(MasterHalvesTest, PlacesAreCountedFromTheFirst) {
  const std::vector<float> masters = {1.0f, FromBits(0x3F808000), FromBits(0x3F818000)};
  std::vector<uint16_t> low(3);
  std::vector<int64_t> ties = {5};
  EXPECT_TRUE(SplitMasters(masters, Rounded(masters), 100, low, ties));
  EXPECT_EQ(ties, (std::vector<int64_t>{5, 101}));
}

TEST(MasterHalvesTest, WhatIsNotTheMasterRoundedIsNoticed) {
  std::vector<uint16_t> low(1);
  std::vector<int64_t> ties;
  const std::vector<float> one = {1.0f}, nan = {std::nanf("")};
  EXPECT_FALSE(SplitMasters(one, Rounded({1.5f}), 0, low, ties));
  EXPECT_FALSE(SplitMasters(nan, Rounded(nan), 0, low, ties));
  std::vector<float> out(1);
  EXPECT_FALSE(JoinMasters(Rounded(one), std::vector<uint16_t>{7}, std::vector<int64_t>{0}, out))
      << "not in the middle";
  EXPECT_FALSE(
      JoinMasters(Rounded(one), std::vector<uint16_t>{0x8000}, std::vector<int64_t>{1}, out))
      << "no such place";
}

}  // namespace
}  // namespace plumb::learner
