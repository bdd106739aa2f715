// Inequalities solved for their letter (reward/maths/math_interval.h), and intervals as people
// write them.
#include "reward/maths/math_interval.h"

#include <gtest/gtest.h>

#include "reward/maths/math_answer.h"
#include "reward/maths/math_parser.h"
#include "reward/maths/math_value.h"

namespace plumb::reward {
namespace {

TEST(SameMathInterval, InequalitiesAreSolved) {
  struct Case {
    const char *truth, *answer;
    bool same;
  };
  for (const Case& c : {
           Case{"x>3", "x-3>0", true},
           Case{"x>3", "-x<-3", true},
           Case{"x>3", "3-x<0", true},
           Case{"x\\ge 3", "2x\\ge 6", true},
           Case{"(3,\\infty)", "x-3>0", true},
           Case{"x>3", "2x>5", false},
           Case{"x<3", "-x<-3", false},
           Case{"x>3", "x-3\\ge0", false},
           Case{"-1\\le x\\le 1", "|x|\\le 1", true},
           Case{"-1\\le x\\le 1", "|x|<1", false},
           Case{"(2,4)", "|x-3|<1", true},
           Case{"x<-2 or x>2", "|x|>2", true},
           Case{"(-\\infty,-2]\\cup[2,\\infty)", "2\\le|x|", true},
           Case{"(-\\infty,0)\\cup(0,\\infty)", "|x|>0", true},
           Case{"1<x<3", "1<2x-1<5", true},
           Case{"1<x<3", "5>2x-1>1", true},
           Case{"1<x\\le 3", "1<2x-1<5", false},
           Case{"x\\ne 3", "x-3\\ne 0", true},
           Case{"x\\ge\\sqrt2", "x-\\sqrt2\\ge 0", true},
           Case{"x>3", "y>3", false},
           Case{"x>\\frac{a}{2}", "2x>a", true},
           Case{"x^2<4", "x^2-4<0", true},
           Case{"x>0", "x^2>0", false},
       }) {
    EXPECT_EQ(SameMath(c.answer, c.truth), c.same) << c.truth << " | " << c.answer;
    EXPECT_EQ(SameMath(c.truth, c.answer), c.same) << c.answer << " | " << c.truth;
  }
}

TEST(SameMathInterval, BracketsThatOpenOutward) {
  struct Case {
    const char *truth, *answer;
    bool same;
  };
  for (const Case& c : {
           Case{"[1,2)", "\\left[1,2\\right[", true},
           Case{"(1,2)", "]1,2[", true},
           Case{"(1,2]", "]1;2]", true},
           Case{"[1,2]", "]1,2[", false},
           Case{"x<1", "]-\\infty, 1[", true},
           Case{"1<x<2", "x\\in\\,]1,2[", true},
           Case{"(1,100)", "]1,100[", true},
           Case{"(-\\infty,1]\\cup[2,3)", "\\left]-\\infty;1\\right]\\cup\\left[2;3\\right[", true},
           Case{"(-\\infty,1)\\cup(2,\\infty)", "]-\\infty,1[\\cup]2,+\\infty[", true},
           Case{"\\{1,3\\}\\cup\\{2,4\\}", "\\{1,2,3,4\\}", true},
           Case{"\\{1,2\\}\\cup\\{2\\}", "\\{1,2\\}", true},
           Case{"\\{1,2,3\\}", "\\{1\\}\\cup\\{2\\}", false},
           Case{"(1,2)\\cup\\{3\\}", "\\{3\\}\\cup(1,2)", true},
       }) {
    EXPECT_EQ(SameMath(c.answer, c.truth), c.same) << c.truth << " | " << c.answer;
    EXPECT_EQ(SameMath(c.truth, c.answer), c.same) << c.answer << " | " << c.truth;
  }
}

TEST(SolveLinear, PlaceAndDirection) {
  const auto solve = [](const char* text) { return SolveLinear(ReadExpression(text)->expression); };
  const auto zero = solve("3-2t");
  ASSERT_TRUE(zero);
  EXPECT_EQ(zero->name, "t");
  EXPECT_FALSE(zero->rising);
  EXPECT_TRUE(SameValue(zero->place, ReadExpression("3/2")->expression));
  EXPECT_TRUE(solve("(x+1)^2-x^2")) << "the square goes";
  for (const char* text : {"x^2", "|x|", "x-x", "x+y", "5", "1/x", "\\sqrt{x}", "ix"})
    EXPECT_FALSE(solve(text)) << text;
}

TEST(SolveInequality, NestedBarsStayCheap) {
  std::string bars(30, '|');
  const auto reading = ReadExpression(bars + "x" + bars);
  const auto three = ReadExpression("3");
  if (reading) {
    EXPECT_FALSE(SolveInequality(reading->expression, three->expression, true));
  }
}

}  // namespace
}  // namespace plumb::reward
