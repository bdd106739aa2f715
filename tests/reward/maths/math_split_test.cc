// Cuts outside brackets (reward/maths/math_split.h).
#include "reward/maths/math_split.h"

#include <gtest/gtest.h>

#include <string>

namespace plumb::reward::math_split {
namespace {

std::string Cut(std::string_view text, Sign sign, bool thousands = true) {
  std::string out;
  const Parts parts = Split(text, thousands, sign);
  for (size_t i = 0; i < parts.parts.size(); ++i) {
    if (i > 0) out += "|" + std::string(parts.signs[i - 1]) + "|";
    out += parts.parts[i];
  }
  return out;
}

TEST(MathSplit, OnlyOutsideBrackets) {
  EXPECT_EQ(Cut("1, (2, 3), \\{4, 5\\}", ListSign), "1|,|(2, 3)|,|\\{4, 5\\}");
  EXPECT_EQ(Cut("\\begin{matrix}1,2\\end{matrix}, 3", ListSign),
            "\\begin{matrix}1,2\\end{matrix}|,|3");
  EXPECT_EQ(Cut("2 or 3", ListSign), "2| or |3");
  EXPECT_EQ(Cut("word", ListSign), "word") << "an 'or' within a word";
  EXPECT_EQ(Cut("(1, 2", ListSign), "(1, 2") << "a bracket that never closes holds the rest";
  EXPECT_EQ(Cut("1), 2", ListSign), "1)|,|2") << "one that never opened holds nothing";
}

TEST(MathSplit, ThousandsAreNoList) {
  EXPECT_EQ(Cut("1,234, 5", ListSign), "1,234|,|5");
  EXPECT_EQ(Cut("1,234", ListSign, false), "1|,|234");
  EXPECT_EQ(Cut("0,234", ListSign), "0|,|234");
  EXPECT_EQ(Cut("1,2345", ListSign), "1|,|2345");
}

TEST(MathSplit, SignsOfSetsAndRelations) {
  EXPECT_EQ(Cut("(1,2)\\cup[3,4]", UnionSign), "(1,2)|\\cup|[3,4]");
  EXPECT_EQ(Cut("(1,2)U[3,4]", UnionSign), "(1,2)|U|[3,4]");
  EXPECT_EQ(Cut("\\R\\setminus\\{0\\}", WithoutSign), "\\R|\\setminus|\\{0\\}");
  EXPECT_EQ(Cut("1 < x <= 3", RelationSign), "1|<|x|<=|3");
  EXPECT_EQ(Cut("x \\in A", RelationSign), "x|\\in|A");
  EXPECT_EQ(Cut("\\infty", RelationSign), "\\infty");
}

TEST(MathSplit, BracketsAroundAll) {
  EXPECT_TRUE(Encloses("(1, (2))"));
  EXPECT_FALSE(Encloses("(1)(2)"));
  EXPECT_FALSE(Encloses("1"));
  EXPECT_TRUE(Encloses("\\{1\\}"));
}

}  // namespace
}  // namespace plumb::reward::math_split
