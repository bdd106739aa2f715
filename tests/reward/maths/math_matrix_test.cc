// Matrices and vectors, worked out cell by cell (reward/maths/math_matrix.h), in the spellings that
// people use.
#include "reward/maths/math_matrix.h"

#include <gtest/gtest.h>

#include <string>

#include "reward/maths/latex_text.h"
#include "reward/maths/math_answer.h"
#include "reward/maths/math_parser.h"

namespace plumb::reward {
namespace {

const std::string kSquare = "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
                  kColumn = "\\begin{pmatrix}2\\\\4\\end{pmatrix}";

void Check(const std::string& truth, std::initializer_list<const char*> same,
           std::initializer_list<const char*> different) {
  for (const char* answer : same) {
    EXPECT_TRUE(SameMath(answer, truth)) << truth << " | " << answer;
    EXPECT_TRUE(SameMath(truth, answer)) << truth << " | " << answer;
  }
  for (const char* answer : different) {
    EXPECT_FALSE(SameMath(answer, truth)) << truth << " | " << answer;
    EXPECT_FALSE(SameMath(truth, answer)) << truth << " | " << answer;
  }
}

TEST(SameMathMatrix, Spellings) {
  Check(kSquare,
        {"\\begin{array}{cc}1&2\\\\3&4\\end{array}",
         "\\left[\\begin{matrix}1&2\\\\3&4\\end{matrix}\\right]",
         "\\left(\\begin{array}{c|c}1 & 2 \\\\ \\hline 3 & 4\\end{array}\\right)",
         "\\begin{bmatrix*}[r]1&2\\\\3&4\\end{bmatrix*}", "[[1,2],[3,4]]",
         "\\begin{bmatrix}1&3\\\\2&4\\end{bmatrix}^T"},
        {"\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}",
         "\\left|\\begin{array}{cc}1&2\\\\3&4\\end{array}\\right|", "[[1,3],[2,4]]",
         "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}^T", "\\begin{array}{cc}1&2\\\\3&5\\end{array}",
         "-2"});
}

TEST(SameMathMatrix, FactorsSumsAndTransposes) {
  Check(kColumn,
        {"2\\begin{pmatrix}1\\\\2\\end{pmatrix}", "2 \\cdot \\begin{bmatrix}1\\\\2\\end{bmatrix}",
         "-\\frac{1}{2}\\begin{pmatrix}-4\\\\-8\\end{pmatrix}", "(2,4)^T", "[2, 4]^{\\top}",
         "\\begin{pmatrix}2&4\\end{pmatrix}^{\\mathrm{T}}",
         "2\\begin{pmatrix}1&2\\end{pmatrix}^{\\intercal}",
         "\\begin{pmatrix}1\\\\1\\end{pmatrix}+\\begin{pmatrix}1\\\\3\\end{pmatrix}", "2(1,2)",
         "2\\langle 1,2\\rangle"},
        {"3\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(4,2)^T", "\\begin{pmatrix}2&4\\end{pmatrix}",
         "\\binom{2}{4}",
         "\\begin{pmatrix}1\\\\1\\end{pmatrix}-\\begin{pmatrix}1\\\\3\\end{pmatrix}"});
  Check("\\begin{pmatrix}1+3t\\\\2-4t\\end{pmatrix}",
        {"\\begin{pmatrix}1\\\\2\\end{pmatrix}+t\\begin{pmatrix}3\\\\-4\\end{pmatrix}"}, {"(1,2)"});
  Check("(4,6)", {"(1,2)+(3,4)"}, {"(1,2)-(3,4)", "P(2,3)", "(1,2)+(3,4,5)"});
}

TEST(MathMatrix, ShapesHaveToFit) {
  const auto read = [](const std::string& text) { return ReadMathObject(PlainLatex(text), true); };
  const MathObject square = read(kSquare), column = read(kColumn),
                   words = read("\\begin{pmatrix}a b\\\\\\text{no}\\end{pmatrix}");
  ASSERT_EQ(square.kind, MathObject::Kind::kMatrix);
  const MathExpression two = ReadExpression("2")->expression;
  EXPECT_TRUE(Scaled(square, two));
  EXPECT_FALSE(Scaled(words, two));
  EXPECT_TRUE(Added(square, square));
  EXPECT_FALSE(Added(square, column));
  ASSERT_TRUE(Transposed(column));
  EXPECT_EQ(Transposed(column)->items.size(), 1u);
  EXPECT_EQ(Transposed(column)->items[0].items.size(), 2u);
  EXPECT_FALSE(Transposed(read("\\begin{pmatrix}1&2\\\\3\\end{pmatrix}")))
      << "rows of different length";
}

}  // namespace
}  // namespace plumb::reward
