// Deciding whether two formulas have one value.
//
// Purpose: three ways, each only where the one before does not apply:
//   exactly     both are rational numbers (roots that come out even, factorials and binomials
//               included): compared as such.
//   in a field  both are rational functions of their letters over Q(i), or rational numbers too
//               large for BigRational: computed at seeded points of the field of p = 2^61 - 31
//               elements, i being a fixed square root of -1 there. Equal formulas agree everywhere;
//               different ones of degree d agree at one point with probability at most d/p
//               (Schwartz and Zippel), and three points are asked: below 1e-45 for d < 1000.
//   in floats   what holds roots, pi, e or functions: at sixteen seeded points, letters between
//               -2.7 and 2.7 in every combination of signs (beyond four letters some share theirs).
//               Without i and |..| a point counts where every root and logarithm is real, four more
//               with positive letters are asked, and only where fewer than two are real do complex
//               values count. Beside each value runs a bound of its rounding error, first order,
//               from u = 2^-64 (long double):
//                 |e(a +- b)| = ea + eb + u|a +- b|        |e(ab)| = |a|eb + |b|ea + ea eb + 4u|ab|
//                 |e(a/b)| = (ea + |a/b| eb)/(|b| - eb) + 8u|a/b|
//                 |e(f(a))| = |f'(a)| ea + 8u|f(a)|
//               Equal means |x - y| <= 4 (ex + ey) at every point where both are finite, at two
//               points at least, and no bound above 1e-9 (1 + |x|): where cancellation eats more
//               digits the answer is "not equal". So 1.41421356 is not \sqrt{2}; two different
//               formulas of a few terms would have to agree to about 17 digits.
// The real odd root is taken of negative numbers ((-8)^{1/3} is -2), other powers are principal
// ones.
// Thread safety: pure. Determinism: the points depend on the letters' names alone. Cost: linear in
// the nodes.
#pragma once

#include <cstdint>
#include <optional>

#include "reward/maths/math_expression.h"

namespace plumb::reward {

inline constexpr uint64_t kFieldPrime = 2305843009213693921;        // 2^61 - 31, = 1 mod 4
inline constexpr uint64_t kFieldMinusOneRoot = 583529827753931384;  // its square is -1 there

// The value if it is a rational number that can be had exactly.
std::optional<BigRational> ExactValue(const MathExpression& e);
// The value if it is a real number (no letters); +-infinity for \infty. For ordering, not for
// equality.
std::optional<double> RealValue(const MathExpression& e);
bool SameValue(const MathExpression& a, const MathExpression& b);
// Whether a = c b for one constant c other than 0 (`positive`: above 0) wherever both are defined:
// whether a = 0 and b = 0 (a < 0 and b < 0) say the same. Both must be other than the constant 0.
bool Proportional(const MathExpression& a, const MathExpression& b, bool positive);

}  // namespace plumb::reward
