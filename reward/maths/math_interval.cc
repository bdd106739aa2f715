#include "reward/maths/math_interval.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reward/maths/math_parser.h"
#include "reward/maths/math_quantity.h"
#include "reward/maths/math_value.h"

namespace plumb::reward {
namespace {

using Kind = MathObject::Kind;

MathExpression Number(int64_t value) { return MathExpression::Constant(BigRational(value)); }
MathExpression Minus(const MathExpression& a, const MathExpression& b) {
  return MathExpression::Join(MathOp::kSubtract, a, b);
}

// The inside of |..|; none for what is no absolute value.
std::optional<MathExpression> Inside(const MathExpression& e) {
  if (e.nodes().back().op != MathOp::kAbsolute) return std::nullopt;
  return e.WithoutRoot();
}

// low < high with both sides linear.
std::optional<MathObject> LinearInequality(const MathExpression& low, const MathExpression& high,
                                           bool closed) {
  const auto zero = SolveLinear(Minus(low, high));
  if (!zero) return std::nullopt;
  return zero->rising ? Ray(zero->name, nullptr, &zero->place, false, closed)
                      : Ray(zero->name, &zero->place, nullptr, closed, false);
}

}  // namespace

MathObject Ray(const std::string& name, const MathExpression* low, const MathExpression* high,
               bool low_closed, bool high_closed) {
  MathObject out;
  out.kind = Kind::kInterval;
  out.text = name;
  const MathExpression infinity = ReadExpression("\\infty")->expression;
  const MathExpression minus = ReadExpression("-\\infty")->expression;
  out.items.push_back(QuantityObject({low != nullptr ? *low : minus, std::nullopt}));
  out.items.push_back(QuantityObject({high != nullptr ? *high : infinity, std::nullopt}));
  out.left_closed = low_closed, out.right_closed = high_closed;
  return out;
}

MathObject Intersection(const MathObject& a, const MathObject& b) {
  const auto value = [](const MathObject& o) {
    return RealValue(o.quantities[0].value).value_or(0);
  };
  MathObject out = a;
  const double la = value(a.items[0]), lb = value(b.items[0]), ha = value(a.items[1]),
               hb = value(b.items[1]);
  if (lb > la || (lb == la && !b.left_closed))
    out.items[0] = b.items[0], out.left_closed = b.left_closed;
  if (hb < ha || (hb == ha && !b.right_closed))
    out.items[1] = b.items[1], out.right_closed = b.right_closed;
  return out;
}

std::optional<LinearZero> SolveLinear(const MathExpression& e) {
  if (e.symbols().size() != 1 || e.Has(MathOp::kImaginary)) return std::nullopt;
  LinearZero out;
  out.name = e.symbols()[0];
  const MathExpression at_0 = e.Replaced(out.name, Number(0));
  const MathExpression slope = Minus(e.Replaced(out.name, Number(1)), at_0);
  const auto letter = ReadExpression(out.name);
  const auto rise = RealValue(slope);
  if (!letter || !rise || *rise == 0 || !std::isfinite(*rise) || !RealValue(at_0))
    return std::nullopt;
  const MathExpression line = MathExpression::Join(
      MathOp::kAdd, MathExpression::Join(MathOp::kMultiply, slope, letter->expression), at_0);
  if (!SameValue(line, e)) return std::nullopt;
  out.rising = *rise > 0;
  out.place = MathExpression::Join(MathOp::kDivide, Minus(Number(0), at_0), slope);
  if (const auto exact = ExactValue(out.place)) out.place = MathExpression::Constant(*exact);
  return out;
}

std::optional<MathObject> SolveInequality(const MathExpression& low, const MathExpression& high,
                                          bool closed) {
  const auto inside_low = Inside(low), inside_high = Inside(high);
  if (inside_low && high.symbols().empty()) {  // |f| < c: -c < f < c
    const auto bound = RealValue(high);
    if (!bound || !(*bound > 0) || !std::isfinite(*bound)) return std::nullopt;
    const auto below = LinearInequality(*inside_low, high, closed);
    const auto above = LinearInequality(Minus(Number(0), high), *inside_low, closed);
    if (!below || !above) return std::nullopt;
    return Intersection(*below, *above);
  }
  if (inside_high && low.symbols().empty()) {  // c < |f|: f < -c or c < f
    const auto bound = RealValue(low);
    if (!bound || *bound < 0 || !std::isfinite(*bound)) return std::nullopt;
    auto below = LinearInequality(*inside_high, Minus(Number(0), low), closed);
    auto above = LinearInequality(low, *inside_high, closed);
    if (!below || !above) return std::nullopt;
    MathObject out;
    out.kind = Kind::kUnion;
    out.text = below->text;
    out.items = {std::move(*below), std::move(*above)};
    return out;
  }
  return LinearInequality(low, high, closed);
}

MathObject Joined(Kind kind, std::vector<MathObject> items) {
  MathObject out;
  out.kind = kind;
  out.items = std::move(items);
  return out;
}

std::optional<MathObject> Without(MathObject from, MathObject holes) {
  if (holes.kind == Kind::kQuantity) holes = Joined(Kind::kSet, {holes});
  const bool points = std::all_of(holes.items.begin(), holes.items.end(), [](const MathObject& o) {
    return o.kind == Kind::kQuantity && RealValue(o.quantities[0].value).has_value();
  });
  const bool set = from.kind == Kind::kInterval || from.kind == Kind::kUnion ||
                   from.kind == Kind::kSet || from.kind == Kind::kWithout ||
                   (from.kind == Kind::kTuple && from.items.size() == 2);
  if (!set || !points || (holes.kind != Kind::kSet && holes.kind != Kind::kList))
    return std::nullopt;
  MathObject out = Joined(Kind::kWithout, {from, holes});
  out.text = from.text;
  return out;
}

std::optional<MathObject> Punched(const MathObject& list) {
  std::vector<MathObject> holes;
  std::optional<MathObject> from;
  std::string name;
  for (const MathObject& item : list.items) {
    const bool named =
        item.kind == Kind::kWithout || item.kind == Kind::kInterval || item.kind == Kind::kUnion;
    if (named && (item.text.empty() || (!name.empty() && item.text != name))) return std::nullopt;
    if (named) name = item.text;
    if (item.kind == Kind::kWithout) {
      holes.insert(holes.end(), item.items[1].items.begin(), item.items[1].items.end());
    } else if (item.kind == Kind::kQuantity && !holes.empty()) {
      holes.push_back(item);
    } else if (named && !from) {
      from = item;
    } else {
      return std::nullopt;
    }
  }
  if (holes.empty()) return std::nullopt;
  return Without(from ? *from : Ray(name, nullptr, nullptr, false, false),
                 Joined(Kind::kSet, holes));
}

}  // namespace plumb::reward
