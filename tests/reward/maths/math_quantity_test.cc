// Quantities as people write them (reward/maths/math_quantity.h, and the spellings of
// reward/maths/latex_text.h under them).
#include "reward/maths/math_quantity.h"

#include <gtest/gtest.h>

#include <string>

#include "reward/maths/latex_text.h"
#include "reward/maths/math_answer.h"

namespace plumb::reward {
namespace {

struct Pair {
  const char *truth, *answer;
  bool same;
};

void Check(std::initializer_list<Pair> pairs) {
  for (const Pair& p : pairs) {
    EXPECT_EQ(SameMath(p.answer, p.truth), p.same) << p.truth << " | " << p.answer;
    EXPECT_EQ(SameMath(p.truth, p.answer), p.same) << p.answer << " | " << p.truth;
  }
}

TEST(SameMathQuantity, Ordinals) {
  Check({{"12", "12th", true},
         {"12", "12^{\\text{th}}", true},
         {"12", "12\\text{th}", true},
         {"1", "1st", true},
         {"2", "2nd place", true},
         {"3", "3^{rd}", true},
         {"11", "11th", true},
         {"12th", "12^{th}", true},
         {"12", "13th", false},
         {"21", "21st", true},
         {"3", "3th", false},
         {"3nd", "3dn", true}});
}

TEST(SameMathQuantity, UnitsInFractions) {
  Check({{"9.8", "9.8\\,\\frac{\\text{m}}{\\text{s}^2}", true},
         {"9.8", "9.8 \\frac{m}{s^2}", true},
         {"9.8 \\text{ m/s}^2", "9.8\\,\\frac{\\text{m}}{\\text{s}^2}", true},
         {"9.8 \\text{ m/s}^2", "9.8\\,\\frac{\\text{m}}{\\text{s}}", false},
         {"90 \\text{ km/h}", "25\\,\\frac{\\mathrm{m}}{\\mathrm{s}}", true},
         {"5 \\text{ g/cm}^3", "5 \\frac{\\text{g}}{\\text{cm}^3}", true},
         {"\\frac{3m}{s}", "3\\frac{m}{s}", true},
         {"2m", "m+m", true},
         {"5m", "5 m", true},
         {"5 feet 6 inches", "66 inches", true}});
}

TEST(SameMathQuantity, ElectricalUnits) {
  Check({{"2", "2\\ \\Omega", true},
         {"2\\Omega", "2", true},
         {"2\\Omega", "3\\Omega", false},
         {"2 \\text{ k}\\Omega", "2000\\ \\Omega", true},
         {"5", "5 \\mu\\text{m}", true},
         {"5 \\mu\\text{m}", "0.005 \\text{ mm}", true},
         {"5\\text{ V}", "5", true},
         {"\\Omega", "\\Omega", true}});
}

TEST(SameMathQuantity, PowersOfTenAndThousands) {
  Check({{"3\\times10^8", "3 x 10^8", true},
         {"3\\times10^8", "3x10^8", true},
         {"3\\times10^8", "3 \u00D7 10\u2078", true},
         {"3\\times10^{-8}", "3 x 10^{-8}", true},
         {"10^{12}", "10\u00B9\u00B2", true},
         {"10^{-12}", "10\u207B\u00B9\u00B2", true},
         {"x_{12}", "x\u2081\u2082", true},
         {"30x^8", "3x10^8", false},
         {"1000000", "1 000 000", true},
         {"12345", "12\u202F345", true},
         {"1234.5", "1 234.5", true},
         {"1 100/200", "1.5", true},
         {"[1,100]", "1100", false},
         {"(100,200)", "100200", false},
         {"[1,100]", "[1, 100]", true},
         {"(100,200)", "(100, 200)", true},
         {"x \\in [1,100]", "1100", false},
         {"1,100", "1100", true}});
}

TEST(SameMathQuantity, MarkupAroundIt) {
  Check({{"13", "{\\bf 13}", true},
         {"13", "{\\it 13}", true},
         {"13", "\\color{red}{13}", true},
         {"13", "\\textcolor{blue}{13}", true},
         {"13", "\\underline{13}", true},
         {"73", "__73__", true},
         {"73", "*73*", true},
         {"73", "`73`", true},
         {"73", "\\emph{73}", true},
         {"2*3", "6", true}});
}

TEST(SameMathQuantity, TheConstantOfAnIntegral) {
  Check({{"x^2+C", "x^2+c", true},
         {"x^2+C", "c+x^2", true},
         {"x^2+C", "x^2", false},
         {"a+b+c", "A+B+C", false},
         {"a+b+c", "a+b+C", false},
         {"2cx", "2Cx", false},
         {"x+C", "x+k", false}});
}

TEST(ReadQuantity, Shapes) {
  const auto kind = [](const char* text) {
    const auto object = ReadQuantity(text, true);
    return object ? object->kind : MathObject::Kind::kWords;
  };
  EXPECT_EQ(kind("5 cm"), MathObject::Kind::kQuantity);
  EXPECT_EQ(kind("1 \\pm 2"), MathObject::Kind::kList);
  EXPECT_EQ(kind("5 cats or dogs"), MathObject::Kind::kWords);
  EXPECT_EQ(kind("[1,2)"), MathObject::Kind::kWords);
  EXPECT_EQ(ReadQuantity("12th", true)->quantities.size(), 2u) << "the ordinal, and 12 t h";
}

TEST(WithoutMarkup, OnlyWhereItEnclosesAll) {
  EXPECT_EQ(WithoutMarkup(" **__x__** "), "x");
  EXPECT_EQ(WithoutMarkup("*a* + *b*"), "*a* + *b*");
  EXPECT_EQ(WithoutMarkup("**"), "**");
  EXPECT_EQ(WithoutMarkup("_x"), "_x");
}

TEST(SpacedThousands, GroupsOfThree) {
  EXPECT_EQ(SpacedThousands("1 000 000", 0), 9u);
  EXPECT_EQ(SpacedThousands("12 345 or", 0), 6u);
  for (const char* text : {"1000 000", "1 00", "1 0000", "0 123", "1,2 000", "1 100/200", "x"}) {
    EXPECT_EQ(SpacedThousands(text, text[1] == ',' ? 2 : 0), 0u) << text;
  }
}

}  // namespace
}  // namespace plumb::reward
