// Codes of float16 (kernels/fp16/half_codes.h) against their definition, each of them.
#include "kernels/fp16/half_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/rng.h"

namespace plumb::kernels {
namespace {

// IEEE 754: (-1)^s (1 + f / 1024) 2^(e - 15), and f 2^-24 where e is 0.
double Defined(uint32_t code) {
  const int e = static_cast<int>(code >> 10 & 31U);
  const double f = code & 0x3FFU;
  const double size = e == 0 ? std::ldexp(f, -24) : std::ldexp(1 + f / 1024, e - 15);
  return (code & 0x8000U) != 0 ? -size : size;
}

TEST(HalfCodesTest, EveryCodeIsWhatItSaysAndComesBack) {
  for (uint32_t code = 0; code <= 0xFFFF; ++code) {
    const auto c = static_cast<uint16_t>(code);
    if ((code >> 10 & 31U) == 31) {
      EXPECT_EQ(std::isnan(HalfValue(c)), (code & 0x3FFU) != 0) << code;
      if ((code & 0x3FFU) != 0) continue;
      EXPECT_TRUE(std::isinf(HalfValue(c)));
    } else {
      EXPECT_EQ(static_cast<double>(HalfValue(c)), Defined(code)) << code;
    }
    EXPECT_EQ(HalfCode(HalfValue(c)), c) << code;
  }
}

// Between two neighbours: the nearer one, and of two as near the even code.
TEST(HalfCodesTest, RoundsToTheNearestTiesToEven) {
  for (uint32_t code = 0; code < 0x7BFF; ++code) {
    const double low = Defined(code), high = Defined(code + 1), middle = (low + high) / 2;
    const auto tie = static_cast<float>(middle);  // a float has it: one bit more
    ASSERT_EQ(static_cast<double>(tie), middle);
    EXPECT_EQ(HalfCode(tie), code % 2 == 0 ? code : code + 1) << code;
    EXPECT_EQ(HalfCode(std::nextafter(tie, 0.0f)), code);
    EXPECT_EQ(HalfCode(std::nextafter(tie, 1e9f)), code + 1);
    EXPECT_EQ(HalfCode(-std::nextafter(tie, 1e9f)), 0x8000U | (code + 1));
  }
}

TEST(HalfCodesTest, WhatIsTooLargeIsInfinityAndWhatIsNoneStaysNone) {
  EXPECT_EQ(HalfCode(65519.996f), 0x7BFF);
  for (const float big : {65520.0f, 65535.9f, 65536.0f, 1e30f, std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(HalfCode(big), kHalfInfinity) << big;
    EXPECT_EQ(HalfCode(-big), 0x8000U | kHalfInfinity) << big;
  }
  EXPECT_TRUE(std::isnan(HalfValue(HalfCode(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(HalfCode(0x1p-25f), 0) << "a tie between nothing and the smallest";
  EXPECT_EQ(HalfCode(std::nextafter(0x1p-25f, 1.0f)), 1);
  EXPECT_EQ(HalfCode(-0.0f), 0x8000);
}

}  // namespace
}  // namespace plumb::kernels
