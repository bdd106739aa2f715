#include "reward/maths/math_quantity.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "common/base/text.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/math_parser.h"
#include "reward/maths/math_split.h"

namespace plumb::reward {
namespace {

using Kind = MathObject::Kind;

MathExpression Negative(const MathExpression& e) {
  return MathExpression::Join(MathOp::kSubtract, MathExpression::Constant(BigRational(0)), e);
}

// Letters, spaces and \text alone, at least one word of two letters: what people write behind a
// number.
bool OnlyWords(std::string_view s) {
  if (!(s.front() == ' ' || s.front() == '\\' || s.front() == '-')) return false;
  const std::string words = CanonicalWords(s);
  size_t run = 0, longest = 0;
  for (char c : words) {
    if (!IsLetter(c) && std::string_view(" -.'()").find(c) == std::string_view::npos) return false;
    run = IsLetter(c) ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  for (std::string_view join : {" or ", " and "}) {
    if ((" " + words + " ").find(join) != std::string::npos) return false;
  }
  return longest >= 2;
}

// number unit [and] number unit ..., all of one dimension, as one quantity in base units.
std::optional<MathQuantity> Compound(std::string_view s, bool thousands) {
  std::optional<MathQuantity> sum;
  int terms = 0;
  for (; terms < 4; ++terms) {
    s = Trim(s);
    if (s.starts_with("and ") && terms > 0) s = Trim(s.substr(4));
    if (s.starts_with("\\text{ and }") && terms > 0) s = Trim(s.substr(12));
    if (s.empty() || !IsDigit(s.front())) break;
    auto number = ReadExpression(s, {.letters = false, .thousands = thousands});
    if (!number) return std::nullopt;
    s.remove_prefix(number->used);
    size_t end = 0;
    while (end < s.size() && !IsDigit(s[end])) ++end;
    std::string_view name = Trim(s.substr(0, end));
    for (std::string_view join : {" and", "\\text{ and }", ","}) {
      if (name.ends_with(join)) name = Trim(name.substr(0, name.size() - join.size()));
    }
    const auto unit = ReadUnit(name);
    if (!unit || unit->percent || unit->radian || unit->scale_only || !unit->offset.zero())
      return std::nullopt;
    MathExpression term = MathExpression::Join(MathOp::kMultiply, number->expression,
                                               MathExpression::Constant(unit->factor));
    if (!sum) {
      sum = MathQuantity{std::move(term), *unit};
    } else if (sum->unit->powers != unit->powers) {
      return std::nullopt;
    } else {
      sum->value = MathExpression::Join(MathOp::kAdd, sum->value, term);
    }
    sum->unit->factor = BigRational(1);
    sum->unit->weak = false;
    s.remove_prefix(end);
  }
  if (terms < 2 || !Trim(s).empty()) return std::nullopt;
  return sum;
}

// "st", "nd", "rd", "th" behind the number that they belong to, also raised or in a box: its bytes;
// 0: none.
size_t OrdinalEnding(std::string_view number, std::string_view behind) {
  if (number.empty() || !IsDigit(number.back())) return 0;
  const bool teen = number.size() > 1 && number[number.size() - 2] == '1';
  const size_t last = static_cast<size_t>(number.back() - '0');
  static constexpr std::array<std::string_view, 4> kEndings = {"th", "st", "nd", "rd"};
  const std::string ending(teen || last > 3 ? kEndings[0] : kEndings[last]);
  for (const std::string& spelling : {ending, "^{" + ending + "}", "\\text{" + ending + "}",
                                      "^\\text{" + ending + "}", "^{\\text{" + ending + "}}"}) {
    if (!behind.starts_with(spelling)) continue;
    return spelling.size() < behind.size() && IsLetter(behind[spelling.size()]) ? 0
                                                                                : spelling.size();
  }
  return 0;
}

// "x^2 + c": the added constant of an integral, whose case means nothing.
bool AnyConstant(const MathExpression& e) {
  for (const std::string& name : e.symbols()) {
    if (name == "a" || name == "b" || name == "A" || name == "B" || name == "C") return false;
  }
  if (e.symbols().size() < 2) return false;
  std::vector<int> sums = {e.root()};
  while (!sums.empty()) {
    const MathNode node = e.nodes()[static_cast<size_t>(sums.back())];
    sums.pop_back();
    if (node.op == MathOp::kSymbol && e.symbols()[static_cast<size_t>(node.index)] == "c")
      return true;
    if (node.op == MathOp::kAdd) sums.insert(sums.end(), {node.left, node.right});
  }
  return false;
}

// \pm makes a list; words that multiply are multiplied.
MathObject Settle(MathQuantity quantity) {
  if (quantity.unit && quantity.unit->scale_only) {
    quantity.value = MathExpression::Join(MathOp::kMultiply, quantity.value,
                                          MathExpression::Constant(quantity.unit->factor));
    quantity.unit.reset();
    quantity.decimals = -1;
  }
  if (AnyConstant(quantity.value))
    quantity.value = quantity.value.Replaced("c", ReadExpression("C")->expression);
  if (!quantity.value.Has(MathOp::kPlusMinus) && !quantity.value.Has(MathOp::kMinusPlus)) {
    return QuantityObject(std::move(quantity));
  }
  MathObject out;
  out.kind = Kind::kList;
  for (MathExpression& e : quantity.value.Signed()) {
    MathQuantity one = quantity;
    one.value = std::move(e);
    out.items.push_back(QuantityObject(std::move(one)));
  }
  return out.items.empty() ? MathObject() : out;
}

}  // namespace

MathObject QuantityObject(MathQuantity quantity) {
  MathObject out;
  out.kind = Kind::kQuantity;
  out.quantities.push_back(std::move(quantity));
  return out;
}

// A formula with what may stand around it: a currency sign before; a unit, % or words behind; more
// such terms of one dimension ("5 feet 6 inches").
std::optional<MathObject> ReadQuantity(std::string_view s, bool thousands) {
  std::optional<Unit> currency;
  bool negative = false;
  std::string_view rest = s;
  if (rest.starts_with("-")) {
    size_t used = 0;
    if (ReadCurrencySign(Trim(rest.substr(1)), &used)) negative = true, rest = Trim(rest.substr(1));
  }
  size_t used = 0;
  if (auto sign = ReadCurrencySign(rest, &used)) {
    currency = sign;
    rest = Trim(rest.substr(used));
  }
  auto bare = ReadExpression(rest, {.letters = false, .thousands = thousands});
  if (bare && currency && bare->used < rest.size()) {
    // "$5 million", "$18 USD"
    const auto behind = ReadUnit(rest.substr(bare->used));
    if (behind && behind->scale_only) {
      bare->expression = MathExpression::Join(MathOp::kMultiply, bare->expression,
                                              MathExpression::Constant(behind->factor));
      bare->decimals = -1;
    } else if (behind && behind->powers != currency->powers) {
      return std::nullopt;
    } else if (!behind && !OnlyWords(rest.substr(bare->used))) {
      return std::nullopt;
    }
    bare->used = rest.size();
  }
  if (currency) {
    if (!bare || bare->used != rest.size()) return std::nullopt;
    if (negative) bare->expression = Negative(bare->expression);
    return Settle({std::move(bare->expression), currency, false, bare->decimals, bare->digits});
  }
  std::optional<MathQuantity> with_unit;
  bool words_only = false;
  if (bare) {
    const std::string_view behind = rest.substr(bare->used);
    if (Trim(behind).empty())
      return Settle(
          {std::move(bare->expression), std::nullopt, false, bare->decimals, bare->digits});
    if (const auto unit = ReadUnit(behind)) {
      with_unit = MathQuantity{bare->expression, *unit, unit->weak && behind.front() != ' ',
                               bare->decimals, bare->digits};
      if (!with_unit->weak) return Settle(std::move(*with_unit));
    }
    if (auto sum = Compound(rest, thousands)) return Settle(std::move(*sum));
    if (const size_t ending = OrdinalEnding(rest.substr(0, bare->used), behind);
        ending > 0 && bare->decimals == 0) {
      if (Trim(behind.substr(ending)).empty() || OnlyWords(behind.substr(ending))) {
        with_unit =
            MathQuantity{bare->expression, std::nullopt, false, bare->decimals, bare->digits};
      }
    }
    words_only = bare->expression.symbols().empty() && OnlyWords(behind);
  }
  auto full = ReadExpression(rest, {.letters = true, .thousands = thousands});
  if (full) {
    const std::string_view behind = rest.substr(full->used);
    if (Trim(behind).empty()) {
      // A word that happens to be read letter by letter is not meant as a product when it stands
      // alone.
      MathObject out =
          Settle({std::move(full->expression), std::nullopt, false, full->decimals, full->digits});
      if (with_unit && out.kind == Kind::kQuantity) out.quantities.push_back(std::move(*with_unit));
      return out;
    }
    if (const auto unit = ReadUnit(behind);
        unit && behind.find("\\text") != std::string_view::npos) {
      return Settle({std::move(full->expression), *unit, false, -1, 0});
    }
  }
  if (with_unit && !with_unit->unit) return Settle(std::move(*with_unit));
  if (words_only)
    return Settle({std::move(bare->expression), std::nullopt, false, bare->decimals, bare->digits});
  return std::nullopt;
}

}  // namespace plumb::reward
