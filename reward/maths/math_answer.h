// Whether two maths answers say the same: the `math` rule.
//
// Purpose: the verdict for competition and school answers that are more than one number. An answer
// is read as one of
//   a quantity   a formula (math_expression.h) with an optional unit, currency or percent sign
//                (units.h);
//   a list       values with commas, "or", "and", or a \pm: order-free; the same value twice counts
//                twice;
//   a set        \{..\}: order-free, repetition counts once; one element is that element;
//                \emptyset;
//   a tuple      (a, b, ..): in order; also an open interval if there are two; a matrix, row by
//                row; factors, sums and transposes of them are worked out (math_matrix.h); a
//                determinant is no matrix;
//   an interval  [a, b), ]a, b[, rays, chains of < and <=, `x \in`, unions of them, \ne and
//                \setminus: as sets of points; what is linear in one letter, or the absolute value
//                of it, is solved (math_interval.h);
//   an equation  x = 5: its value, and its name if both sides have one; else both sides' difference
//                up to a constant factor; an inequality up to a positive one;
//   a number in another base, 1011_2;
//   words        compared without case, outer punctuation and LaTeX boxes; a lone short word is no
//                product of letters.
// Formulas are compared by math_value.h: exactly wherever they are rational. Written choices:
//   a unit on one side alone does not count; two units must be of one dimension and are converted
//   exactly; words behind a number that are no unit do not count; 50% is 50 and is 0.5, when only
//   one side has the sign; degrees are radians where the other side has \pi and no unit; a decimal
//   is the number it writes (1/3 is not 0.333) unless `digits` says how many significant ones make
//   a rounded answer good; words with exactly one number say that number, if the truth is one.
// Limits: kMaxAnswerBytes, kMaxNodes, kMaxNesting, 64 items; beyond them only equal words are
// equal. Bounded time.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace plumb::reward {

enum class MathFallback : uint8_t {
  kNone = 0,        // no marker, no answer
  kLastNumber = 1,  // the last number of the text
  kLastMath = 2,    // behind the last "answer is" or "answer:", else the last $..$, \(..\), \[..\],
                    // else the last number
};

// The answer as written: where ExtractAnswer() (reward/maths/answer.h) finds one, behind the
// thinking; else by `fallback`.
std::optional<std::string> ExtractMath(std::string_view text, MathFallback fallback);

// `digits`: 0, or the number of significant digits from which a decimal answer may be a rounded
// one.
bool SameMath(std::string_view answer, std::string_view truth, int digits = 0);

}  // namespace plumb::reward
