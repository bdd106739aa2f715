#include "reward/math_object.h"

#include <algorithm>
#include <cmath>

#include "reward/latex_text.h"
#include "reward/math_parser.h"
#include "reward/math_split.h"
#include "reward/math_value.h"

namespace plumb::reward {
namespace {

using math_split::ListSign;
using math_split::Encloses;
using math_split::IsDigit;
using math_split::IsLetter;
using math_split::Parts;
using math_split::RelationSign;
using math_split::Split;
using math_split::Trim;
using math_split::UnionSign;
using math_split::WithoutSign;
using Kind = MathObject::Kind;
constexpr int kMaxDepth = 12;
constexpr size_t kMaxItems = 64;

std::optional<MathReading> Whole(std::string_view s, bool thousands) {
  auto reading = ReadExpression(s, {.letters = true, .thousands = thousands});
  if (!reading || !Trim(s.substr(reading->used)).empty()) return std::nullopt;
  return reading;
}

MathObject Words(std::string_view s) {
  MathObject out;
  out.text = CanonicalWords(s);
  return out;
}

MathObject Quantity(MathQuantity quantity) {
  MathObject out;
  out.kind = Kind::kQuantity;
  out.quantities.push_back(std::move(quantity));
  return out;
}

class Reader {
 public:
  explicit Reader(bool thousands) : thousands_(thousands) {}

  MathObject Read(std::string_view s, int depth) {
    s = Trim(s);
    if (s.empty() || depth > kMaxDepth || ++steps_ > 2000) return Words(s);
    const std::string words = CanonicalWords(s);
    if (words == "\\emptyset" || words == "no solution" || words == "no solutions" || words == "empty set" ||
        words == "no real solution" || words == "no real solutions" || s == "\\{\\}") {
      MathObject out;
      out.kind = Kind::kSet;
      return out;
    }
    if (words == "\\r" || words == "all real numbers" || words == "all reals") return Ray("", nullptr, nullptr, false, false);
    if (auto quantity = ReadQuantity(s)) return *quantity;
    if (s.front() == '{' && Encloses(s)) {
      const std::string_view inside = s.substr(1, s.size() - 2);
      const Parts parts = Split(inside, thousands_, ListSign);
      if (parts.parts.size() > 1) return Elements(Kind::kSet, parts.parts, depth);
      return Read(inside, depth + 1);
    }
    if (const Parts parts = Split(s, thousands_, UnionSign); parts.parts.size() > 1) {
      return Elements(Kind::kUnion, parts.parts, depth);
    }
    if (const Parts parts = Split(s, thousands_, WithoutSign); parts.parts.size() == 2) {
      auto without = Without(Read(parts.parts[0], depth + 1), Read(parts.parts[1], depth + 1));
      return without ? *without : Words(s);
    }
    if (const Parts parts = Split(s, thousands_, ListSign); parts.parts.size() > 1) return List(parts, depth);
    if (const Parts parts = Split(s, thousands_, RelationSign); parts.parts.size() > 1) return Relation(s, parts, depth);
    if (auto bracketed = Bracketed(s, depth)) return *bracketed;
    if (auto based = Based(s)) return *based;
    return Words(s);
  }

 private:
  // A formula with what may stand around it: a currency sign before; a unit, % or words behind; more such terms of one
  // dimension ("5 feet 6 inches").
  std::optional<MathObject> ReadQuantity(std::string_view s) {
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
    auto bare = ReadExpression(rest, {.letters = false, .thousands = thousands_});
    if (bare && currency && bare->used < rest.size()) {
      // "$5 million", "$18 USD"
      const auto behind = ReadUnit(rest.substr(bare->used));
      if (behind && behind->scale_only) {
        bare->expression =
            MathExpression::Join(MathOp::kMultiply, bare->expression, MathExpression::Constant(behind->factor));
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
      if (Trim(behind).empty()) return Settle({std::move(bare->expression), std::nullopt, false, bare->decimals, bare->digits});
      if (const auto unit = ReadUnit(behind)) {
        with_unit = MathQuantity{bare->expression, *unit, unit->weak && behind.front() != ' ', bare->decimals, bare->digits};
        if (!with_unit->weak) return Settle(std::move(*with_unit));
      }
      if (auto sum = Compound(rest)) return Settle(std::move(*sum));
      words_only = bare->expression.symbols().empty() && OnlyWords(behind);
    }
    auto full = ReadExpression(rest, {.letters = true, .thousands = thousands_});
    if (full) {
      const std::string_view behind = rest.substr(full->used);
      if (Trim(behind).empty()) {
        // A word that happens to be read letter by letter is not meant as a product when it stands alone.
        MathObject out = Settle({std::move(full->expression), std::nullopt, false, full->decimals, full->digits});
        if (with_unit && out.kind == Kind::kQuantity) out.quantities.push_back(std::move(*with_unit));
        return out;
      }
      if (const auto unit = ReadUnit(behind); unit && behind.find("\\text") != std::string_view::npos) {
        return Settle({std::move(full->expression), *unit, false, -1, 0});
      }
    }
    if (words_only) return Settle({std::move(bare->expression), std::nullopt, false, bare->decimals, bare->digits});
    return std::nullopt;
  }

  static MathExpression Negative(const MathExpression& e) {
    return MathExpression::Join(MathOp::kSubtract, MathExpression::Constant(BigRational(0)), e);
  }

  // Letters, spaces and \text alone, at least one word of two letters: what people write behind a number.
  static bool OnlyWords(std::string_view s) {
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
  std::optional<MathQuantity> Compound(std::string_view s) {
    std::optional<MathQuantity> sum;
    for (int terms = 0; terms < 4; ++terms) {
      s = Trim(s);
      if (s.starts_with("and ") && terms > 0) s = Trim(s.substr(4));
      if (s.starts_with("\\text{ and }") && terms > 0) s = Trim(s.substr(12));
      if (s.empty() || !IsDigit(s.front())) break;
      auto number = ReadExpression(s, {.letters = false, .thousands = thousands_});
      if (!number) return std::nullopt;
      s.remove_prefix(number->used);
      size_t end = 0;
      while (end < s.size() && !IsDigit(s[end])) ++end;
      std::string_view name = Trim(s.substr(0, end));
      for (std::string_view join : {" and", "\\text{ and }", ","}) {
        if (name.ends_with(join)) name = Trim(name.substr(0, name.size() - join.size()));
      }
      const auto unit = ReadUnit(name);
      if (!unit || unit->percent || unit->radian || unit->scale_only || !unit->offset.zero()) return std::nullopt;
      MathExpression term = MathExpression::Join(MathOp::kMultiply, number->expression, MathExpression::Constant(unit->factor));
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
    if (!sum || !Trim(s).empty()) return std::nullopt;
    return sum;
  }

  // \pm makes a list; words that multiply are multiplied.
  MathObject Settle(MathQuantity quantity) {
    if (quantity.unit && quantity.unit->scale_only) {
      quantity.value =
          MathExpression::Join(MathOp::kMultiply, quantity.value, MathExpression::Constant(quantity.unit->factor));
      quantity.unit.reset();
      quantity.decimals = -1;
    }
    if (!quantity.value.Has(MathOp::kPlusMinus) && !quantity.value.Has(MathOp::kMinusPlus)) {
      return Quantity(std::move(quantity));
    }
    MathObject out;
    out.kind = Kind::kList;
    for (MathExpression& e : quantity.value.Signed()) {
      MathQuantity one = quantity;
      one.value = std::move(e);
      out.items.push_back(Quantity(std::move(one)));
    }
    return out.items.empty() ? Words("\\pm") : out;
  }

  MathObject Elements(Kind kind, const std::vector<std::string_view>& parts, int depth) {
    if (parts.size() > kMaxItems) return Words("");
    MathObject out;
    out.kind = kind;
    for (std::string_view part : parts) {
      MathObject item = Read(part, depth + 1);
      // {1 \pm 2}: its values are elements.
      if (item.kind == Kind::kList && (kind == Kind::kSet || kind == Kind::kList)) {
        out.items.insert(out.items.end(), item.items.begin(), item.items.end());
      } else {
        out.items.push_back(std::move(item));
      }
    }
    return out;
  }

  MathObject List(const Parts& parts, int depth) {
    std::vector<std::string_view> filled;
    for (std::string_view part : parts.parts) {
      for (std::string_view join : {"and ", "or "}) {
        if (part.starts_with(join)) part = Trim(part.substr(join.size()));
      }
      // ", k \in \Z" says where a letter lives.
      const bool domain = part.find("\\in") != std::string_view::npos &&
                          (part.ends_with("\\Z") || part.ends_with("\\N") || part.ends_with("\\Q") || part.ends_with("\\R"));
      if (!part.empty() && !domain) filled.push_back(part);
    }
    if (filled.size() == 1) return Read(filled[0], depth + 1);
    MathObject out = Elements(Kind::kList, filled, depth);
    if (out.kind != Kind::kList || out.items.empty()) return Words("");
    const auto all = [&](Kind kind) {
      return std::all_of(out.items.begin(), out.items.end(), [&](const MathObject& o) {
        return o.kind == kind && o.text == out.items[0].text;
      });
    };
    // A part in words makes the whole words: "Monday, Tuesday" or a sentence with commas.
    if (std::any_of(out.items.begin(), out.items.end(), [](const MathObject& o) { return o.kind == Kind::kWords; })) {
      const bool words = std::all_of(out.items.begin(), out.items.end(),
                                     [](const MathObject& o) { return o.kind == Kind::kWords && !o.text.empty(); });
      if (!words) {
        std::string text;
        for (std::string_view part : parts.parts) text += std::string(text.empty() ? "" : ", ") + std::string(part);
        return Words(text);
      }
      return out;
    }
    const bool any = std::any_of(parts.signs.begin(), parts.signs.end(), [](std::string_view sign) {
      return sign.find("or") != std::string_view::npos || sign == "\\vee";
    });
    if (auto punched = any ? std::nullopt : Punched(out)) return *punched;
    if (all(Kind::kInterval) && !out.items[0].text.empty()) {
      if (any) {
        out.kind = Kind::kUnion;
      } else if (out.items.size() == 2) {
        return Intersection(out.items[0], out.items[1]);
      }
      return out;
    }
    if (all(Kind::kAssignment)) {  // x = 1, x = 2
      MathObject joined = out.items[0];
      MathObject values;
      values.kind = Kind::kList;
      for (const MathObject& item : out.items) values.items.push_back(item.items[0]);
      joined.items = {values};
      joined.difference.reset();
      return joined;
    }
    if (out.items[0].kind == Kind::kAssignment &&
        std::all_of(out.items.begin() + 1, out.items.end(), [](const MathObject& o) { return o.kind == Kind::kQuantity; })) {
      MathObject joined = out.items[0];  // x = 1, 2
      out.items[0] = joined.items[0];
      joined.items = {out};
      joined.difference.reset();
      return joined;
    }
    return out;
  }

  // A \setminus \{1, 2\}.
  static std::optional<MathObject> Without(MathObject from, MathObject holes) {
    if (holes.kind == Kind::kQuantity) holes = Joined(Kind::kSet, {holes});
    const bool points = std::all_of(holes.items.begin(), holes.items.end(), [](const MathObject& o) {
      return o.kind == Kind::kQuantity && RealValue(o.quantities[0].value).has_value();
    });
    const bool set = from.kind == Kind::kInterval || from.kind == Kind::kUnion || from.kind == Kind::kSet ||
                     from.kind == Kind::kWithout || (from.kind == Kind::kTuple && from.items.size() == 2);
    if (!set || !points || (holes.kind != Kind::kSet && holes.kind != Kind::kList)) return std::nullopt;
    MathObject out = Joined(Kind::kWithout, {from, holes});
    out.text = from.text;
    return out;
  }

  // "x > 0, x \ne 1" and "x \ne 1, 2": what all its lines leave of one set.
  static std::optional<MathObject> Punched(const MathObject& list) {
    std::vector<MathObject> holes;
    std::optional<MathObject> from;
    std::string name;
    for (const MathObject& item : list.items) {
      const bool named = item.kind == Kind::kWithout || item.kind == Kind::kInterval || item.kind == Kind::kUnion;
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
    return Without(from ? *from : Ray(name, nullptr, nullptr, false, false), Joined(Kind::kSet, holes));
  }

  static MathObject Joined(Kind kind, std::vector<MathObject> items) {
    MathObject out;
    out.kind = kind;
    out.items = std::move(items);
    return out;
  }

  static MathObject Ray(const std::string& name, const MathExpression* low, const MathExpression* high, bool low_closed,
                        bool high_closed) {
    MathObject out;
    out.kind = Kind::kInterval;
    out.text = name;
    const MathExpression infinity = ReadExpression("\\infty")->expression;
    const MathExpression minus = ReadExpression("-\\infty")->expression;
    out.items.push_back(Quantity({low != nullptr ? *low : minus, std::nullopt}));
    out.items.push_back(Quantity({high != nullptr ? *high : infinity, std::nullopt}));
    out.left_closed = low_closed, out.right_closed = high_closed;
    return out;
  }

  static MathObject Intersection(const MathObject& a, const MathObject& b) {
    const auto value = [](const MathObject& o) { return RealValue(o.quantities[0].value).value_or(0); };
    MathObject out = a;
    const double la = value(a.items[0]), lb = value(b.items[0]), ha = value(a.items[1]), hb = value(b.items[1]);
    if (lb > la || (lb == la && !b.left_closed)) out.items[0] = b.items[0], out.left_closed = b.left_closed;
    if (hb < ha || (hb == ha && !b.right_closed)) out.items[1] = b.items[1], out.right_closed = b.right_closed;
    return out;
  }

  // f(x) or P(x, y): a function's name with its letters.
  static bool FunctionOf(std::string_view s) {
    if (s.size() < 4 || !IsLetter(s[0]) || s[1] != '(' || s.back() != ')') return false;
    return std::all_of(s.begin() + 2, s.end() - 1, [](char c) { return IsLetter(c) || c == ',' || c == ' '; });
  }

  MathObject Relation(std::string_view s, const Parts& parts, int depth) {
    if (parts.parts.size() > 4) return Words(s);
    const auto& p = parts.parts;
    const auto& signs = parts.signs;
    std::vector<std::optional<MathReading>> e;
    for (std::string_view part : p) e.push_back(Whole(part, thousands_));
    const auto name = [&](size_t i) { return e[i] ? e[i]->expression.LoneSymbol() : std::string(); };
    const auto constant = [&](size_t i) { return e[i] && RealValue(e[i]->expression).has_value(); };
    const bool equations = std::all_of(signs.begin(), signs.end(), [](std::string_view sign) { return sign == "="; });
    if (equations) {
      const size_t last = p.size() - 1;
      if (!name(0).empty() || FunctionOf(p[0])) return Assignment(name(0).empty() ? std::string(p[0]) : name(0), e[0], p[last], depth);
      bool constants = true;
      for (size_t i = 0; i < p.size(); ++i) constants = constants && constant(i);
      if (constants) return Read(p[last], depth + 1);
      if (auto measures = Measures(p.front(), p[last])) return *measures;
      if (!name(last).empty() && p.size() == 2) return Assignment(name(last), e[last], p[0], depth);
      const std::string label = CanonicalWords(p[0]);
      if (!e[0] && !label.empty() && label.find_first_of("0123456789^_(){}[]\\") == std::string::npos) {
        return Read(p[last], depth + 1);  // "Area = 25"
      }
      // Three letters of geometry before a value: "AB = 5".
      if (e[0] && p.size() == 2 && constant(1) && p[0].size() <= 3 && std::all_of(p[0].begin(), p[0].end(), IsLetter)) {
        return Assignment(std::string(p[0]), e[0], p[last], depth);
      }
    }
    if (signs.size() == 1 && signs[0] == "\\in") return name(0).empty() ? Words(s) : Read(p[1], depth + 1);
    const auto direction = [&](size_t i) { return signs[i][0]; };
    const auto closed = [&](size_t i) { return signs[i].size() == 2; };
    const bool order = std::all_of(signs.begin(), signs.end(), [](std::string_view x) { return x[0] == '<' || x[0] == '>'; });
    if (order && p.size() == 2) {
      const bool less = direction(0) == '<';
      if (!name(0).empty() && constant(1)) {
        const MathExpression& end = e[1]->expression;
        return less ? Ray(name(0), nullptr, &end, false, closed(0)) : Ray(name(0), &end, nullptr, closed(0), false);
      }
      if (!name(1).empty() && constant(0)) {
        const MathExpression& end = e[0]->expression;
        return less ? Ray(name(1), &end, nullptr, closed(0), false) : Ray(name(1), nullptr, &end, false, closed(0));
      }
    }
    if (order && p.size() == 3 && direction(0) == direction(1) && !name(1).empty() && constant(0) && constant(2)) {
      const bool less = direction(0) == '<';
      const size_t low = less ? 0 : 2, high = less ? 2 : 0;
      return Ray(name(1), &e[low]->expression, &e[high]->expression, closed(less ? 0 : 1), closed(less ? 1 : 0));
    }
    if (p.size() == 2 && direction(0) == '!') {  // x \ne 3: the line without a point
      for (const size_t i : {0, 1}) {
        if (name(i).empty() || !constant(1 - i)) continue;
        return *Without(Ray(name(i), nullptr, nullptr, false, false), Quantity({e[1 - i]->expression, std::nullopt}));
      }
    }
    if (p.size() == 2 && e[0] && e[1] && signs[0] != "\\in") {
      MathObject out;
      out.kind = Kind::kRelation;
      const bool swapped = direction(0) == '>';
      out.relation = direction(0) == '!' ? '!' : direction(0) == '=' ? '=' : closed(0) ? 'L' : '<';
      out.difference = MathExpression::Join(MathOp::kSubtract, e[swapped ? 1 : 0]->expression, e[swapped ? 0 : 1]->expression);
      return out;
    }
    return Words(s);
  }

  // "9 cm = 0.09 m": either way of saying it, if they say the same.
  std::optional<MathObject> Measures(std::string_view first, std::string_view last) {
    auto a = ReadQuantity(first), b = ReadQuantity(last);
    if (!a || !b || a->kind != Kind::kQuantity || b->kind != Kind::kQuantity) return std::nullopt;
    const MathQuantity &x = a->quantities[0], &y = b->quantities[0];
    if (!x.unit || !y.unit || x.unit->powers != y.unit->powers || !x.unit->offset.zero()) return std::nullopt;
    const auto based = [](const MathQuantity& q) {
      return MathExpression::Join(MathOp::kMultiply, q.value, MathExpression::Constant(q.unit->factor));
    };
    if (!SameValue(based(x), based(y))) return std::nullopt;
    b->quantities.push_back(x);
    return b;
  }

  MathObject Assignment(const std::string& name, const std::optional<MathReading>& left, std::string_view right, int depth) {
    MathObject out;
    out.kind = Kind::kAssignment;
    out.text = name;
    out.items.push_back(Read(right, depth + 1));
    if (const auto value = Whole(right, thousands_); value && left) {
      out.difference = MathExpression::Join(MathOp::kSubtract, left->expression, value->expression);
    }
    return out;
  }

  std::optional<MathObject> Bracketed(std::string_view s, int depth) {
    if (s.starts_with("\\begin{")) return Matrix(s, depth);
    if (!Encloses(s)) return std::nullopt;
    const bool braces = s.starts_with("\\{");
    if (!braces && s.front() != '(' && s.front() != '[') return std::nullopt;
    const size_t size = braces ? 2 : 1, tail = s.ends_with("\\}") ? 2 : 1;
    const std::string_view inside = s.substr(size, s.size() - size - tail);
    const Parts parts = Split(inside, thousands_, ListSign);
    if (braces) {
      if (tail != 2) return std::nullopt;
      // \{x | x > 3\} and \{x : x > 3\}
      const size_t bar = inside.find_first_of("|:");
      if (bar != std::string_view::npos && bar > 0) {
        const auto element = Whole(Trim(inside.substr(0, bar)), thousands_);
        if (element && !element->expression.LoneSymbol().empty()) return Read(inside.substr(bar + 1), depth + 1);
      }
      return Elements(Kind::kSet, parts.parts, depth);
    }
    if (s.back() != ')' && s.back() != ']') return std::nullopt;
    if (parts.parts.size() == 1) {
      return s.front() == '(' && s.back() == ')' ? std::optional(Read(inside, depth + 1)) : std::nullopt;
    }
    const bool left = s.front() == '[', right = s.back() == ']';
    if (parts.parts.size() == 2 && (left || right)) {
      MathObject out = Elements(Kind::kInterval, parts.parts, depth);
      out.left_closed = left, out.right_closed = right;
      const bool ends = out.items.size() == 2 && out.items[0].kind == Kind::kQuantity && out.items[1].kind == Kind::kQuantity;
      return ends ? std::optional(out) : std::nullopt;
    }
    if (left != right) return std::nullopt;
    return Elements(Kind::kTuple, parts.parts, depth);
  }

  std::optional<MathObject> Matrix(std::string_view s, int depth) {
    const size_t close = s.find('}');
    const size_t end = s.rfind("\\end{");
    if (close == std::string_view::npos || end == std::string_view::npos || end < close) return std::nullopt;
    if (s.substr(0, close).find("matrix") == std::string_view::npos || s.back() != '}') return std::nullopt;
    const std::string_view inside = Trim(s.substr(close + 1, end - close - 1));
    const Parts rows = Split(inside, thousands_, [](std::string_view t, size_t i) -> size_t {
      return t.substr(i).starts_with("\\\\") ? 2 : 0;
    });
    MathObject out;
    out.kind = Kind::kMatrix;
    for (std::string_view row : rows.parts) {
      if (row.empty()) continue;
      const Parts cells = Split(row, thousands_, [](std::string_view t, size_t i) -> size_t { return t[i] == '&' ? 1 : 0; });
      out.items.push_back(Elements(Kind::kTuple, cells.parts, depth));
    }
    return out;
  }

  static std::optional<MathObject> Based(std::string_view s) {
    const size_t bar = s.find('_');
    if (bar == std::string_view::npos || bar == 0) return std::nullopt;
    std::string digits, base;
    for (char c : s.substr(0, bar)) {
      if (!IsDigit(c) && !(c >= 'A' && c <= 'F')) return std::nullopt;
      digits += c;
    }
    for (char c : s.substr(bar + 1)) {
      if (c == '{' || c == '}' || c == ' ') continue;
      if (!IsDigit(c) || base.size() == 2) return std::nullopt;
      base += c;
    }
    if (base.empty() || !IsDigit(digits[0])) return std::nullopt;
    MathObject out;
    out.kind = Kind::kBased;
    out.base = std::stoi(base);
    BigRational value;
    for (char c : digits) {
      const int digit = IsDigit(c) ? c - '0' : c - 'A' + 10;
      const auto next = value.Times(BigRational(out.base));
      if (!next || digit >= out.base) return std::nullopt;
      value = *next->Plus(BigRational(digit));
    }
    out.text = digits.substr(std::min(digits.find_first_not_of('0'), digits.size() - 1));
    out.quantities.push_back({MathExpression::Constant(value), std::nullopt});
    return out;
  }

  const bool thousands_;
  int steps_ = 0;
};

}  // namespace

MathObject ReadMathObject(std::string_view plain, bool thousands) { return Reader(thousands).Read(plain, 0); }

}  // namespace plumb::reward
