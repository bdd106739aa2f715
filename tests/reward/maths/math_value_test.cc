// Reading formulas (reward/maths/math_parser.h, math_expression.h) and their equality
// (reward/maths/math_value.h): each of the three ways, what they must tell apart, and the limits.
#include "reward/maths/math_value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "reward/maths/latex_text.h"
#include "reward/maths/math_expression.h"
#include "reward/maths/math_parser.h"

namespace plumb::reward {
namespace {

MathExpression Formula(const std::string& text) {
  const std::string plain = PlainLatex(text);
  const auto reading = ReadExpression(plain);
  EXPECT_TRUE(reading && reading->used == plain.size()) << text;
  return reading ? reading->expression : MathExpression::Constant(BigRational(0));
}

bool Same(const std::string& a, const std::string& b) {
  const bool one = SameValue(Formula(a), Formula(b)), other = SameValue(Formula(b), Formula(a));
  EXPECT_EQ(one, other) << a << " | " << b;
  return one;
}

TEST(SameValue, RootsOfLettersWhereTheyAreReal) {
  EXPECT_TRUE(Same("\\sqrt{ab}", "\\sqrt{a}\\sqrt{b}"));
  EXPECT_TRUE(Same("\\sqrt{1/n}", "\\frac{1}{\\sqrt{n}}"));
  EXPECT_TRUE(Same("\\frac{\\sqrt{a}}{\\sqrt{b}}", "\\sqrt{\\frac{a}{b}}"));
  EXPECT_TRUE(Same("\\sqrt{ab cd}", "\\sqrt{a}\\sqrt{b}\\sqrt{c}\\sqrt{d}"));
  EXPECT_TRUE(Same("x^{3/2}", "x\\sqrt{x}"));
  EXPECT_TRUE(Same("\\ln(ab)", "\\ln a+\\ln b"));
  EXPECT_FALSE(Same("\\sqrt{x^2}", "x"));
  EXPECT_TRUE(Same("\\sqrt{x^2}", "|x|"));
  EXPECT_FALSE(Same("a\\sqrt{b}", "\\sqrt{a^2b}")) << "a may be negative";
  EXPECT_FALSE(Same("\\ln|x|", "\\ln x"));
  EXPECT_FALSE(Same("\\sqrt{x-1}", "\\sqrt{1-x}"));
  EXPECT_TRUE(Same("\\sqrt{-1}", "i"));
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    if (letter == 'e' || letter == 'i') continue;
    EXPECT_FALSE(Same(std::string("|") + letter + "|", std::string(1, letter)))
        << "every letter is asked with both signs";
  }
}

TEST(MathExpression, ReplacesALetter) {
  const MathExpression e = Formula("x^2+xy").Replaced("x", Formula("y+1"));
  EXPECT_EQ(e.symbols(), (std::vector<std::string>{"y"}));
  EXPECT_TRUE(SameValue(e, Formula("(y+1)^2+(y+1)y")));
  EXPECT_TRUE(SameValue(Formula("|x-1|").WithoutRoot(), Formula("x-1")));
}

TEST(MathParser, ReadsTheLongestFormula) {
  EXPECT_EQ(ReadExpression("18 apples")->used, 2u);
  EXPECT_EQ(ReadExpression("5 cm", {.letters = false})->used, 1u);
  EXPECT_EQ(ReadExpression("1,234")->used, 5u);
  EXPECT_EQ(ReadExpression("1,234", {.thousands = false})->used, 1u);
  EXPECT_EQ(ReadExpression("3.140 rest")->decimals, 3);
  EXPECT_EQ(ReadExpression("0.0012")->digits, 2);
  EXPECT_EQ(ReadExpression("1/2")->decimals, -1);
  EXPECT_FALSE(ReadExpression(""));
  EXPECT_FALSE(ReadExpression("words"));
  EXPECT_FALSE(ReadExpression("yes"));
  EXPECT_FALSE(ReadExpression(")("));
}

TEST(MathParser, ExactNumbers) {
  struct Case {
    const char *text, *value;
  };
  for (const Case& c : {Case{"2+3*4", "14"},
                        Case{"2^3^2", "64"},
                        Case{"-2^2", "-4"},
                        Case{"(-2)^2", "4"},
                        Case{"6/2/3", "1"},
                        Case{"\\frac12+\\frac{1}{2}", "1"},
                        Case{"1\\frac{1}{2}", "1.5"},
                        Case{"2 1/4", "2.25"},
                        Case{"5!", "120"},
                        Case{"\\binom{6}{2}", "15"},
                        Case{"\\sqrt{\\frac{9}{4}}", "1.5"},
                        Case{"|{-3}|", "3"},
                        Case{"\\lfloor -1.5 \\rfloor", "-2"},
                        Case{"\\lceil 1.2 \\rceil", "2"},
                        Case{"\\log_2 32", "5"},
                        Case{"8^{1/3}", "2"},
                        Case{"0.\\overline{9}", "1"},
                        Case{"2(3)", "6"},
                        Case{"3-(-2)", "5"},
                        Case{"2\\times-3", "-6"},
                        Case{"1e3", "1000"}}) {
    const auto value = ExactValue(Formula(c.text));
    ASSERT_TRUE(value) << c.text;
    const bool negative = c.value[0] == '-';
    const BigRational want = *BigRational::FromDecimal(c.value + (negative ? 1 : 0));
    EXPECT_EQ(*value, negative ? want.Negated() : want) << c.text;
  }
}

TEST(MathValue, FieldConstantsAreWhatTheHeaderSays) {
  EXPECT_EQ(kFieldPrime, (1ull << 61) - 31);
  EXPECT_EQ(PowerModulo(3, kFieldPrime - 1, kFieldPrime), 1u);
  EXPECT_EQ(MultiplyModulo(kFieldMinusOneRoot, kFieldMinusOneRoot, kFieldPrime), kFieldPrime - 1);
}

TEST(MathValue, RationalFunctionsInTheField) {
  EXPECT_TRUE(Same("(x+y)^{20}", "(y+x)^{20}"));
  EXPECT_TRUE(Same("\\frac{x^3-y^3}{x-y}", "x^2+xy+y^2"));
  EXPECT_FALSE(Same("\\frac{x^3-y^3}{x-y}", "x^2+2xy+y^2"));
  EXPECT_FALSE(Same("x^{1000}", "x^{1001}"));
  EXPECT_TRUE(Same("(1+i)^{4}", "-4"));
  EXPECT_FALSE(Same("i", "-i"));
  EXPECT_TRUE(Same("2^{5000}", "4^{2500}")) << "too large for exact numbers";
  EXPECT_FALSE(Same("2^{5000}", "2^{5000}+1"));
  EXPECT_FALSE(Same("\\frac{1}{x-x}", "\\frac{1}{x-x}")) << "nowhere defined";
  EXPECT_FALSE(Same("a", "A"));
}

TEST(MathValue, RootsAndFunctionsInFloats) {
  EXPECT_TRUE(Same("\\sqrt{2}+\\sqrt{3}", "\\sqrt{5+2\\sqrt{6}}"));
  EXPECT_TRUE(Same("\\sqrt{2}+\\sqrt{3}-\\sqrt{5+2\\sqrt{6}}", "0"))
      << "the bound covers cancellation";
  EXPECT_FALSE(Same("\\sqrt{2}", "1.4142135623730950"));
  EXPECT_FALSE(Same("\\pi", "\\frac{355}{113}"));
  EXPECT_TRUE(Same("e^{\\pi\\sqrt{163}}", "262537412640768744"))
      << "30 digits agree: the limit that the header names";
  EXPECT_FALSE(Same("e^{\\pi\\sqrt{163}}", "262537412640768000"));
  EXPECT_TRUE(Same("\\sin^2 x+\\cos^2 x", "1"));
  EXPECT_TRUE(Same("\\ln(xy)", "\\ln(yx)"));
  EXPECT_FALSE(Same("\\sqrt{x^2}", "x")) << "not for negative x";
  EXPECT_TRUE(Same("\\sqrt{x^2}", "|x|"));
  EXPECT_TRUE(Same("\\sqrt[3]{-2}", "-\\sqrt[3]{2}"));
  EXPECT_TRUE(Same("\\sqrt{-2}", "i\\sqrt{2}"));
  EXPECT_FALSE(Same("\\tan\\frac{\\pi}{2}", "\\infty"));
}

TEST(MathValue, Proportional) {
  const auto difference = [](const std::string& a, const std::string& b) {
    return MathExpression::Join(MathOp::kSubtract, Formula(a), Formula(b));
  };
  EXPECT_TRUE(Proportional(difference("y", "2x+1"), difference("4x+2", "2y"), false));
  EXPECT_FALSE(Proportional(difference("y", "2x+1"), difference("4x+2", "2y"), true))
      << "the sign turns";
  EXPECT_TRUE(Proportional(difference("2x+2y", "6"), difference("x+y", "3"), true));
  EXPECT_FALSE(Proportional(difference("x", "1"), difference("x", "2"), false));
  EXPECT_FALSE(Proportional(difference("x", "x"), difference("y", "y"), false))
      << "0 = 0 says nothing";
  EXPECT_TRUE(
      Proportional(difference("y", "\\sqrt{2}x"), difference("\\frac{y}{\\sqrt{2}}", "x"), false));
}

TEST(MathValue, RealValues) {
  EXPECT_NEAR(RealValue(Formula("\\frac{\\pi}{2}")).value(), std::acos(0.0), 1e-15);
  EXPECT_EQ(RealValue(Formula("-\\infty")), -std::numeric_limits<double>::infinity());
  EXPECT_FALSE(RealValue(Formula("x")));
  EXPECT_FALSE(RealValue(Formula("i")));
}

TEST(MathExpression, SignsOneByOneAndTogether) {
  EXPECT_EQ(Formula("3").Signed().size(), 1u);
  EXPECT_EQ(Formula("1 \\pm 2").Signed().size(), 2u);
  EXPECT_EQ(Formula("\\pm 1 \\pm 2").Signed().size(), 4u);
  const auto together = Formula("1 \\pm 2 \\mp 3").Signed();
  ASSERT_EQ(together.size(), 2u);
  EXPECT_EQ(*ExactValue(together[0]), BigRational(0));
  EXPECT_EQ(*ExactValue(together[1]), BigRational(2));
  EXPECT_TRUE(Formula("\\pm 1 \\pm 2 \\pm 3 \\pm 4 \\pm 5").Signed().empty());
  EXPECT_EQ(Formula("x_{1}").LoneSymbol(), "x_1");
  EXPECT_EQ(Formula("2x").LoneSymbol(), "");
}

}  // namespace
}  // namespace plumb::reward
