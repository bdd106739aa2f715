// Codes of 8 bits, each of them and the numbers between two (kernels/fp8/fp8_codes.h).
#include "kernels/fp8/fp8_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace plumb::kernels {
namespace {

// What the format's definition says of a code, in double.
double Defined(uint8_t code, int fraction, int bias) {
  const int e = (code & 0x7F) >> fraction, f = code & ((1 << fraction) - 1);
  const double one = 1 << fraction;
  const double a = e == 0 ? f / one * std::exp2(1 - bias) : (1 + f / one) * std::exp2(e - bias);
  return (code & 0x80) != 0 ? -a : a;
}

template <class C>
void CheckCodes(int fraction, int bias, uint8_t largest, double most) {
  EXPECT_EQ(static_cast<double>(C::Most()), most);
  std::vector<double> values;  // ascending, of the codes without a sign
  for (int code = 0; code <= largest; ++code) {
    const double value = Defined(static_cast<uint8_t>(code), fraction, bias);
    EXPECT_EQ(static_cast<double>(C::Value(static_cast<uint8_t>(code))), value) << code;
    EXPECT_EQ(static_cast<double>(C::Value(static_cast<uint8_t>(code | 0x80))), -value) << code;
    EXPECT_EQ(C::Code(static_cast<float>(value)), code);
    EXPECT_EQ(C::Code(static_cast<float>(-value)), code | 0x80);
    values.push_back(value);
  }
  for (int code = largest + 1; code < 0x80; ++code)
    EXPECT_TRUE(std::isnan(C::Value(static_cast<uint8_t>(code))));
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const auto low = static_cast<float>(values[i]), high = static_cast<float>(values[i + 1]);
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(C::Code(middle), i % 2 == 0 ? i : i + 1) << "ties to even";
    EXPECT_EQ(C::Code(std::nextafter(middle, low)), i);
    EXPECT_EQ(C::Code(std::nextafter(middle, high)), i + 1);
  }
  EXPECT_EQ(C::Code(static_cast<float>(most * 1.5)), largest) << "no more than the largest";
  EXPECT_EQ(C::Code(std::numeric_limits<float>::infinity()), largest);
  EXPECT_EQ(C::Code(-std::numeric_limits<float>::max()), largest | 0x80);
  EXPECT_EQ(C::Code(std::numeric_limits<float>::quiet_NaN()), C::kNaN);
  EXPECT_EQ(C::Code(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(Fp8CodesTest, E4M3IsTheNearestOfItsNumbers) { CheckCodes<E4M3>(3, 7, 0x7E, 448); }
TEST(Fp8CodesTest, E5M2IsTheNearestOfItsNumbers) { CheckCodes<E5M2>(2, 15, 0x7B, 57344); }

TEST(Fp8CodesTest, TheLargestOfARowIsTheLargestCode) {
  for (const float largest : {1e-30f, 0.37f, 448.0f, 3e38f}) {
    EXPECT_EQ(E4M3::Code(largest * (1.0f / Fp8Scale<E4M3>(largest))), 0x7E) << largest;
    EXPECT_EQ(E5M2::Code(largest * (1.0f / Fp8Scale<E5M2>(largest))), 0x7B) << largest;
  }
  for (const float tiny : {0.0f, 1e-44f}) {
    const float scale = Fp8Scale<E4M3>(tiny);
    EXPECT_EQ(scale, std::numeric_limits<float>::min());
    EXPECT_TRUE(std::isfinite(1.0f / scale));
  }
  const float of_infinity = Fp8Scale<E5M2>(std::numeric_limits<float>::infinity());
  EXPECT_EQ(E5M2::Code(std::numeric_limits<float>::infinity() * (1.0f / of_infinity)), E5M2::kNaN);
}

}  // namespace
}  // namespace plumb::kernels
