// Exact fractions (reward/maths/big_rational.h) against identities that 64 bits could not check,
// and their limits.
#include "reward/maths/big_rational.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

namespace plumb::reward {
namespace {

BigRational Decimal(const std::string& text, int exponent = 0) {
  return BigRational::FromDecimal(text, exponent).value();
}

TEST(BigRational, ReadsDecimals) {
  EXPECT_EQ(Decimal("0.50"), *BigRational(1).Over(BigRational(2)));
  EXPECT_EQ(Decimal(".25"), *BigRational(1).Over(BigRational(4)));
  EXPECT_EQ(Decimal("5."), BigRational(5));
  EXPECT_EQ(Decimal("1.5", 3), BigRational(1500));
  EXPECT_EQ(Decimal("25", -2), Decimal("0.25"));
  EXPECT_TRUE(Decimal("0.000").zero());
  EXPECT_FALSE(BigRational::FromDecimal(""));
  EXPECT_FALSE(BigRational::FromDecimal("."));
  EXPECT_FALSE(BigRational::FromDecimal("1a"));
  EXPECT_FALSE(BigRational::FromDecimal("1", 100000));
  EXPECT_FALSE(BigRational::FromDecimal(std::string(5000, '9')));
}

TEST(BigRational, RingLawsOnRandomLargeFractions) {
  std::mt19937_64 random(7);
  const auto any = [&] {
    std::string above, below = "1";
    for (int i = 0; i < 60; ++i)
      above += static_cast<char>('0' + random() % 10),
          below += static_cast<char>('0' + random() % 10);
    const BigRational value = *Decimal(above).Over(Decimal(below.substr(0, 1 + random() % 60)));
    return random() % 2 ? value.Negated() : value;
  };
  for (int i = 0; i < 200; ++i) {
    const BigRational a = any(), b = any(), c = any();
    EXPECT_EQ(*a.Plus(b), *b.Plus(a));
    EXPECT_EQ(*a.Plus(b)->Times(c), *a.Times(c)->Plus(*b.Times(c)));
    EXPECT_EQ(*a.Plus(b)->Minus(b), a);
    EXPECT_EQ(*a.Times(b)->Over(b), a);
    EXPECT_EQ(a.Compare(b) < 0, b.Compare(a) > 0);
    EXPECT_EQ(a.Minus(b)->negative(), a.Compare(b) < 0);
    const long double near = a.ToLongDouble() * b.ToLongDouble(),
                      exact = a.Times(b)->ToLongDouble();
    EXPECT_NEAR(static_cast<double>(near / exact), 1.0, 1e-15);
    const uint64_t prime = 2305843009213693921;
    EXPECT_EQ(MultiplyModulo(*a.Modulo(prime), *b.Modulo(prime), prime),
              *a.Times(b)->Modulo(prime));
  }
}

TEST(BigRational, PowersAndRoots) {
  EXPECT_EQ(*BigRational(2).Power(100), Decimal("1267650600228229401496703205376"));
  EXPECT_EQ(*BigRational(2).Power(-2), Decimal("0.25"));
  EXPECT_EQ(*BigRational(0).Power(0), BigRational(1));
  EXPECT_FALSE(BigRational(0).Power(-1));
  EXPECT_EQ(*BigRational(3).Power(200)->Root(100), BigRational(9));
  EXPECT_EQ(*Decimal("0.25").Root(2), Decimal("0.5"));
  EXPECT_EQ(*BigRational(-27).Root(3), BigRational(-3));
  EXPECT_FALSE(BigRational(-4).Root(2));
  EXPECT_FALSE(BigRational(2).Root(2));
  EXPECT_FALSE(BigRational(10).Power(200)->Plus(BigRational(1))->Root(2));
  EXPECT_EQ(BigRational(-7).ToInt64(), -7);
  EXPECT_FALSE(Decimal("0.5").ToInt64());
  EXPECT_FALSE(BigRational(2).Power(70)->ToInt64());
}

TEST(BigRational, RefusesWhatIsTooLargeAndZeroBelow) {
  EXPECT_FALSE(BigRational(1).Over(BigRational(0)));
  EXPECT_FALSE(BigRational(2).Power(3000));
  EXPECT_FALSE(BigRational(2).Power(INT64_MAX));
  EXPECT_FALSE(BigRational(2).Power(INT64_MIN));
  const BigRational large = *BigRational(2).Power(2000);
  EXPECT_FALSE(large.Times(large));
  EXPECT_EQ(*large.Over(large), BigRational(1));
  EXPECT_EQ(*BigRational(1).Power(INT64_MAX), BigRational(1));
}

}  // namespace
}  // namespace plumb::reward
