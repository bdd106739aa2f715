// Reading a formula from the dialect of latex_text.h.
//
// What is read: decimals (thousands commas, exponents, 0.\overline{3}), mixed numbers
// (1\frac{1}{2}, 1 1/2), + - * / : ^ !, multiplication by standing beside each other, \frac \binom
// \sqrt[n] with or without braces, ( ) [ ] { } | |, floors and ceilings, trigonometric functions
// and their inverses, \ln, \log with a base (10 without), \exp, \pi, e, i, \infty, \pm \mp, Latin
// and Greek letters with subscripts. Rules where spelling leaves a choice:
//   a run of two or three letters that is no word of a short list is a product, a longer unknown
//   run is no mathematics; ^12 is to the twelfth, \frac12 is one half; a/bc is (a/b)c; \sin 2x is
//   of the product, \sin(x)y is not; a whole number before a proper fraction of whole numbers adds;
//   degrees inside a function are radians x 180/pi.
// Thread safety: pure. Ownership: a MathExpression owns its nodes. Errors: none is thrown; what
// does not parse ends the reading. Limits: kMaxNodes, kMaxNesting; a text past them is no
// expression.
#pragma once

#include <optional>
#include <string_view>

#include "reward/maths/math_expression.h"

namespace plumb::reward {

struct MathReading {
  MathExpression expression;
  size_t used = 0;    // bytes read; what follows is no part of a formula
  int decimals = -1;  // of a text that is one number literal: digits behind the point; else -1
  int digits = 0;     // its digits without leading zeros
};
struct MathReadingOptions {
  bool letters = true;    // false: Latin letters end the reading, for "5 cm"
  bool thousands = true;  // false: "1,234" are two numbers
};
// The longest formula at the start of `plain`; none if there is none or it is too large.
std::optional<MathReading> ReadExpression(std::string_view plain,
                                          const MathReadingOptions& options = {});

// Whether this run of two or three letters is one of the short words that are no products of
// letters; case ignored.
bool IsShortWord(std::string_view run);

}  // namespace plumb::reward
