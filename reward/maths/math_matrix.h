// Arithmetic of matrices and vectors, cell by cell.
//
// Purpose: an answer may say 2(1, 2)^T or A + tB where the truth writes the cells; math_object.cc
// works them out here. Shapes: MathObject of kind kMatrix (rows, each a kTuple of cells) or kTuple
// (its items). Thread safety: pure functions. Errors: none where shapes differ, or a cell is more
// than one formula without a unit.
#pragma once

#include <optional>

#include "reward/maths/math_object.h"

namespace plumb::reward {

// Rows become columns; a tuple, which is a row or a column, stays.
std::optional<MathObject> Transposed(const MathObject& matrix);
std::optional<MathObject> Scaled(const MathObject& matrix, const MathExpression& factor);
std::optional<MathObject> Added(const MathObject& a, const MathObject& b);

}  // namespace plumb::reward
