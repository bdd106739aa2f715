// Inequalities in one letter as intervals of the line.
//
// Purpose: "x > 3", "-x < -3", "2x - 6 > 0" and "|x - 1| <= 2" say sets of points, and are compared
// as such. Thread safety: pure functions. Ownership: an object owns its parts. Errors: none; what
// is not solved is none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "reward/maths/math_object.h"

namespace plumb::reward {

// From `low` to `high`; nullptr: without end. `name`: the letter that runs over it, or "".
MathObject Ray(const std::string& name, const MathExpression* low, const MathExpression* high,
               bool low_closed, bool high_closed);
// Of two intervals. REQUIRES: their ends are real numbers.
MathObject Intersection(const MathObject& a, const MathObject& b);

// Where a formula that is linear in its one letter is zero, and whether it rises there.
struct LinearZero {
  std::string name;
  MathExpression place;
  bool rising = false;
};
std::optional<LinearZero> SolveLinear(const MathExpression& e);
// Where low < high (`closed`: <=): an interval if both sides are linear in one letter or one is the
// absolute value of such a formula and the other a number; a union of two where the absolute value
// is the greater side.
std::optional<MathObject> SolveInequality(const MathExpression& low, const MathExpression& high,
                                          bool closed);

// An object of `items` alone.
MathObject Joined(MathObject::Kind kind, std::vector<MathObject> items);
// A \setminus \{1, 2\}: `from` without the points of `holes`; none when these are no points or
// `from` is no set.
std::optional<MathObject> Without(MathObject from, MathObject holes);
// "x > 0, x \ne 1" and "x \ne 1, 2": what all the lines of `list` leave of one set.
std::optional<MathObject> Punched(const MathObject& list);

}  // namespace plumb::reward
