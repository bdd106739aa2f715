// A formula with what may stand around it: a currency sign, a unit, words, an ordinal's ending.
//
// Purpose: the leaves of math_object.h. "$5 million", "5 feet 6 inches", "18 apples", "12th" and "1
// \pm 2" are read here. Thread safety: pure functions. Ownership: an object owns its parts. Errors:
// none; what is no quantity is none.
#pragma once

#include <optional>
#include <string_view>

#include "reward/maths/math_object.h"

namespace plumb::reward {

MathObject QuantityObject(MathQuantity quantity);
// All of `plain` (of PlainLatex()) as a quantity; a \pm makes it a list of two. `thousands`:
// whether "1,234" is one number.
std::optional<MathObject> ReadQuantity(std::string_view plain, bool thousands);

}  // namespace plumb::reward
