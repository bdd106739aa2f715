// Units (reward/maths/units.h): dimensions and exact factors, and the LaTeX they are written in
// (reward/maths/latex_text.h).
#include "reward/maths/units.h"

#include <gtest/gtest.h>

#include <string>

#include "reward/maths/latex_text.h"

namespace plumb::reward {
namespace {

Unit Read(const std::string& text) {
  const auto unit = ReadUnit(PlainLatex(text));
  EXPECT_TRUE(unit) << text;
  return unit.value_or(Unit{});
}

TEST(ReadUnit, FactorsAreExact) {
  struct Case {
    const char *a, *b;
    int64_t above, below;  // one a is above / below b
  };
  for (const Case& c : {Case{"km", "m", 1000, 1},
                        Case{"ft", "in", 12, 1},
                        Case{"mile", "yard", 1760, 1},
                        Case{"\\text{ m}^2", "cm^2", 10000, 1},
                        Case{"square feet", "square inches", 144, 1},
                        Case{"\\text{km/h}", "m/s", 5, 18},
                        Case{"miles per hour", "mph", 1, 1},
                        Case{"L", "cm^3", 1000, 1},
                        Case{"\\usd", "cents", 100, 1},
                        Case{"day", "minutes", 1440, 1},
                        Case{"years", "month", 12, 1},
                        Case{"N", "kg*m/s^2", 1, 1},
                        Case{"gallons", "quarts", 4, 1},
                        Case{"pound", "oz", 16, 1},
                        Case{"bytes", "bit", 8, 1},
                        Case{"metres squared", "\\mathrm{m}^{2}", 1, 1},
                        Case{"hours", "s", 3600, 1},
                        Case{"\\frac{\\text{km}}{\\text{h}}", "m/s", 5, 18},
                        Case{"\\frac{m}{s^{2}}", "m/s^2", 1, 1},
                        Case{"\\frac{1}{\\text{s}}", "Hz", 1, 1},
                        Case{"\\frac{kg*m}{s^2}", "N", 1, 1},
                        Case{"k\\Omega", "\\Omega", 1000, 1},
                        Case{"\\Omega", "ohm", 1, 1},
                        Case{"\\mu m", "mm", 1, 1000},
                        Case{"V", "\\text{W/A}", 1, 1},
                        Case{"\\degree", "degrees", 1, 1}}) {
    const Unit a = Read(c.a), b = Read(c.b);
    EXPECT_EQ(a.powers, b.powers) << c.a << " | " << c.b;
    EXPECT_EQ(*a.factor.Over(b.factor), *BigRational(c.above).Over(BigRational(c.below)))
        << c.a << " | " << c.b;
  }
  EXPECT_NE(Read("m").powers, Read("m^2").powers);
  EXPECT_NE(Read("\\usd").powers, Read("\\eur").powers);
  EXPECT_NE(Read("months").powers, Read("days").powers);
  EXPECT_TRUE(Read("%").percent);
  EXPECT_TRUE(Read("million").scale_only);
  EXPECT_FALSE(Read("million dollars").scale_only);
  EXPECT_TRUE(Read("m").weak);
  EXPECT_FALSE(Read("\\text{m}").weak);
  EXPECT_EQ(Read("\\degree F").offset,
            *BigRational::FromDecimal("459.67")->Times(*BigRational(5).Over(BigRational(9))));
}

TEST(ReadUnit, RefusesOtherWords) {
  for (const char* text :
       {"", "apples", "m apples", "/", "m/", "^2", "square", "5", "m+s", "\\foo", "m^12"}) {
    EXPECT_FALSE(ReadUnit(text)) << text;
  }
  size_t used = 0;
  EXPECT_TRUE(ReadCurrencySign("\\usd 5", &used));
  EXPECT_EQ(used, 4u);
  EXPECT_TRUE(ReadCurrencySign("Rs. 5", &used));
  EXPECT_EQ(used, 3u);
  EXPECT_FALSE(ReadCurrencySign("USDT", &used));
  EXPECT_FALSE(ReadCurrencySign("5", &used));
}

TEST(PlainLatex, OneSpellingAThing) {
  struct Case {
    const char *text, *want;
  };
  for (const Case& c :
       {Case{" $\\dfrac{1}{2}$ ", "\\frac{1}{2}"}, Case{"\\left( 1, 2 \\right)", "( 1, 2 )"},
        Case{"3 \\times 4 \\cdot 5", "3 * 4 * 5"}, Case{"x \\leq 3", "x <= 3"},
        Case{"90^{\\circ}", "90\\degree"}, Case{"1\\,234", "1234"}, Case{"1{,}234", "1,234"},
        Case{"\\$5", "\\usd 5"}, Case{"$5", "\\usd 5"}, Case{"\\mathrm{e}", "e"},
        Case{"\\mathrm{cm}", "\\text{cm}"}, Case{"\u22125", "-5"}, Case{"5.", "5"},
        Case{"**5**", "5"}, Case{"x**2", "x^2"}, Case{"\\mathbb{R}", "\\R"},
        Case{"\\operatorname{sin} x", "\\sin  x"}, Case{"50\\%", "50%"}}) {
    EXPECT_EQ(PlainLatex(c.text), c.want) << c.text;
  }
}

TEST(LastBox, NestedBracesAndTheLastOne) {
  EXPECT_EQ(LastBox("\\boxed{1} then \\boxed{\\frac{1}{2}}."), "\\frac{1}{2}");
  EXPECT_EQ(LastBox("\\boxed{\\boxed{5}}"), "5");
  EXPECT_EQ(LastBox("\\boxed{\\{1,2\\}}"), "\\{1,2\\}");
  EXPECT_EQ(LastBox("\\fbox{7}"), "7");
  EXPECT_EQ(LastBox("$\\boxed 5$"), "5");
  EXPECT_EQ(LastBox("\\boxed{1} \\boxed{2"), "1");
  EXPECT_FALSE(LastBox("no box"));
  EXPECT_FALSE(LastBox(""));
}

}  // namespace
}  // namespace plumb::reward
