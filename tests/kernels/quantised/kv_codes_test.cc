// The codes of keys and values in fewer bits.
#include "kernels/quantised/kv_codes.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::kernels {
namespace {

TEST(KvCodes, EveryCodeComesBack) {
  for (int code = 0; code < 256; ++code) {
    const auto c = static_cast<uint8_t>(code);
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(OfE4M3(c)));
      continue;
    }
    EXPECT_EQ(E4M3Code(OfE4M3(c)), c) << code;
    EXPECT_EQ(std::signbit(OfE4M3(c)), code > 127) << code;
  }
  for (int code = -127; code <= 127; ++code)
    EXPECT_EQ(OfInt8(Int8Code(static_cast<float>(code))), static_cast<float>(code));
  for (int code = 0; code < 16; ++code) EXPECT_EQ(Int4Code(OfInt4(code)), code);
  uint8_t row[2];
  for (const float scale : {0.0f, 1.0f, 0.0078125f, 3e38f}) {
    PutKvScale(scale, row);
    EXPECT_EQ(KvScaleAt(row), ToFloat(ToBFloat16(scale)));
  }
}

TEST(KvCodes, WhatLiesBetweenGoesToTheNearestAndTiesToEven) {
  for (int code = 0; code + 1 < 0x7F; ++code) {
    const float low = OfE4M3(static_cast<uint8_t>(code)),
                high = OfE4M3(static_cast<uint8_t>(code + 1)), middle = low + (high - low) / 2;
    EXPECT_LT(low, high);
    EXPECT_EQ(E4M3Code(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(E4M3Code(std::nextafter(middle, 1e9f)), code + 1);
    EXPECT_EQ(E4M3Code(middle), code % 2 == 0 ? code : code + 1);
  }
  EXPECT_EQ(OfInt8(Int8Code(2.5f)), 2);
  EXPECT_EQ(OfInt8(Int8Code(-3.5f)), -4);
  EXPECT_EQ(OfInt8(Int8Code(1000)), 127);
  EXPECT_EQ(OfInt8(Int8Code(-1000)), -127);
  EXPECT_EQ(OfInt4(Int4Code(8)), 7);
  EXPECT_EQ(OfInt4(Int4Code(-9)), -8);
  EXPECT_EQ(OfE4M3(E4M3Code(1000)), 448);
  for (const float bad : {NAN, -NAN}) {
    EXPECT_EQ(Int8Code(bad), 0);
    EXPECT_EQ(Int4Code(bad), 0);
    EXPECT_EQ(E4M3Code(bad), 0);
  }
  EXPECT_EQ(KvInverse(0), 0);
  EXPECT_EQ(KvInverse(4), 0.25f);
}

}  // namespace
}  // namespace plumb::kernels
