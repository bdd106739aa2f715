// A maths answer read into its shape: quantity, list, set, tuple, interval, equation, words.
//
// Purpose: the reading half of math_answer.h; the comparing half is math_answer.cc.
// Thread safety: pure. Ownership: an object owns its parts. Errors: what has no shape is words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reward/maths/math_expression.h"
#include "reward/maths/units.h"

namespace plumb::reward {

struct MathQuantity {
  MathExpression value;
  std::optional<Unit> unit;
  bool weak = false;              // "5m": the unit is a guess beside the product 5 x m
  int decimals = -1, digits = 0;  // of a number literal, see MathReading
};

struct MathObject {
  enum class Kind : uint8_t {
    kWords,
    kQuantity,
    kList,
    kSet,
    kTuple,
    kInterval,
    kUnion,
    kWithout,
    kAssignment,
    kRelation,
    kMatrix,
    kBased
  };
  Kind kind = Kind::kWords;
  // words; name of an assignment or of an interval's variable; digits of kBased
  std::string text;
  std::vector<MathQuantity> quantities;  // readings of kQuantity, the likeliest first
  // elements; an interval's two ends; an assignment's value; a matrix's rows; of kWithout: a set of
  // points, and the set of holes in it
  std::vector<MathObject> items;
  bool left_closed = false, right_closed = false;
  char relation = 0;  // of kRelation: '=', '!', '<' or 'L' (<=)
  // kRelation, kAssignment: left - right (for '<' oriented to be below 0)
  std::optional<MathExpression> difference;
  int base = 0;  // kBased
};

// `plain`: of PlainLatex(). `thousands`: whether "1,234" is one number.
MathObject ReadMathObject(std::string_view plain, bool thousands);

}  // namespace plumb::reward
