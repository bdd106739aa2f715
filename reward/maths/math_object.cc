#include "reward/maths/math_object.h"

#include <algorithm>
#include <cmath>

#include "common/base/text.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/math_interval.h"
#include "reward/maths/math_matrix.h"
#include "reward/maths/math_parser.h"
#include "reward/maths/math_quantity.h"
#include "reward/maths/math_split.h"
#include "reward/maths/math_value.h"

namespace plumb::reward {
namespace {

using math_split::Encloses;
using math_split::ListSign;
using math_split::Parts;
using math_split::RelationSign;
using math_split::Sign;
using math_split::Split;
using math_split::UnionSign;
using math_split::WithoutSign;
using Kind = MathObject::Kind;
constexpr int kMaxDepth = 12;
constexpr size_t kMaxItems = 64, kMaxVectors = 8;

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

class Reader {
 public:
  explicit Reader(bool thousands) : thousands_(thousands) {}

  MathObject Read(std::string_view s, int depth) {
    s = Trim(s);
    if (s.empty() || depth > kMaxDepth || ++steps_ > 2000) return Words(s);
    const std::string words = CanonicalWords(s);
    if (words == "\\emptyset" || words == "no solution" || words == "no solutions" ||
        words == "empty set" || words == "no real solution" || words == "no real solutions" ||
        s == "\\{\\}") {
      MathObject out;
      out.kind = Kind::kSet;
      return out;
    }
    if (words == "\\r" || words == "all real numbers" || words == "all reals")
      return Ray("", nullptr, nullptr, false, false);
    if (LoneWord(s)) return Words(s);
    if (s.starts_with("\\text{") &&
        BracedText(s, 5) == s.substr(6, s.size() - 7)) {  // \text{Red and Blue}
      const Parts parts = Split(s.substr(6, s.size() - 7), thousands_, ListSign);
      if (parts.parts.size() > 1) return List(parts, depth);
    }
    if (thousands_ && CommasInBrackets(s)) return Reader(false).Read(s, depth + 1);
    if (auto quantity = ReadQuantity(s, thousands_)) return *quantity;
    if (s.front() == '{' && Encloses(s)) {
      const std::string_view inside = s.substr(1, s.size() - 2);
      const Parts parts = Split(inside, thousands_, ListSign);
      if (parts.parts.size() > 1) return Elements(Kind::kSet, parts.parts, depth);
      return Read(inside, depth + 1);
    }
    if (auto outward = Outward(s, depth)) return *outward;
    if (const Parts parts = Split(s, thousands_, UnionSign); parts.parts.size() > 1)
      return Union(parts.parts, depth);
    if (const Parts parts = Split(s, thousands_, WithoutSign); parts.parts.size() == 2) {
      auto without = Without(Read(parts.parts[0], depth + 1), Read(parts.parts[1], depth + 1));
      return without ? *without : Words(s);
    }
    if (const Parts parts = Split(s, thousands_, ListSign); parts.parts.size() > 1)
      return List(parts, depth);
    if (const Parts parts = Split(s, thousands_, RelationSign); parts.parts.size() > 1)
      return Relation(s, parts, depth);
    if (auto bracketed = Bracketed(s, depth)) return *bracketed;
    if (auto based = Based(s)) return *based;
    return Words(s);
  }

 private:
  // A word of two or three letters that stands alone: it is no product of letters.
  static bool LoneWord(std::string_view s) {
    if (s.size() < 2 || s.size() > 3 || !std::all_of(s.begin(), s.end(), IsLetter)) return false;
    // "Red", "Ann": capital, then small. "AB" and "xy" are products.
    const auto small = [](char c) { return c >= 'a' && c <= 'z'; };
    return (!small(s[0]) && std::all_of(s.begin() + 1, s.end(), small)) || IsShortWord(s);
  }

  // "(100,200)" and "[1,100]": behind a bracket the comma separates.
  static bool CommasInBrackets(std::string_view s) {
    if ((s.front() != '(' && s.front() != '[') || !Encloses(s)) return false;
    const std::string_view inside = s.substr(1, s.size() - 2);
    return Split(inside, true, ListSign).parts.size() == 1 &&
           Split(inside, false, ListSign).parts.size() > 1;
  }

  // Intervals with brackets that open outward, "[1, 2[" and "]1, 2[", and unions of them.
  std::optional<MathObject> Outward(std::string_view s, int depth) {
    if (IsLetter(s[0]) && Trim(s.substr(1)).starts_with("\\in "))
      s = Trim(Trim(s.substr(1)).substr(4));  // x \in ]1, 2[
    if (s.empty()) return std::nullopt;
    const std::string_view sign = "\\cup";
    if (s.find(sign) != std::string_view::npos) {
      std::vector<std::string_view> pieces;
      bool outward = false;
      for (std::string_view rest = s;;) {
        const size_t at = rest.find(sign);
        pieces.push_back(Trim(rest.substr(0, at)));
        outward = outward || pieces.back().starts_with(']') || pieces.back().ends_with('[');
        if (at == std::string_view::npos) break;
        rest.remove_prefix(at + sign.size());
      }
      return outward ? std::optional(Union(pieces, depth)) : std::nullopt;
    }
    const bool opens = s.starts_with('(') || s.starts_with(']') || s.starts_with('[');
    const bool closes = s.ends_with(')') || s.ends_with(']') || s.ends_with('[');
    if (s.size() < 5 || !opens || !closes || !(s.starts_with(']') || s.ends_with('[')))
      return std::nullopt;
    const std::string_view inside = s.substr(1, s.size() - 2);
    Parts parts = Split(inside, thousands_, ListSign);
    if (parts.parts.size() == 1) parts = Split(inside, false, ListSign);
    return parts.parts.size() == 2 ? Interval(parts.parts, s.front() == '[', s.back() == ']', depth)
                                   : std::nullopt;
  }

  std::optional<MathObject> Interval(const std::vector<std::string_view>& ends, bool left,
                                     bool right, int depth) {
    MathObject out = Elements(Kind::kInterval, ends, depth);
    out.left_closed = left, out.right_closed = right;
    const bool two = out.items.size() == 2 && out.items[0].kind == Kind::kQuantity &&
                     out.items[1].kind == Kind::kQuantity;
    return two ? std::optional(out) : std::nullopt;
  }

  // Of intervals; of sets of elements it is the set of all.
  MathObject Union(const std::vector<std::string_view>& parts, int depth) {
    MathObject out = Elements(Kind::kUnion, parts, depth);
    const bool sets = std::all_of(out.items.begin(), out.items.end(),
                                  [](const MathObject& o) { return o.kind == Kind::kSet; });
    if (out.kind != Kind::kUnion || out.items.empty() || !sets) return out;
    MathObject all;
    all.kind = Kind::kSet;
    for (const MathObject& set : out.items)
      all.items.insert(all.items.end(), set.items.begin(), set.items.end());
    return all.items.size() > kMaxItems ? Words("") : all;
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
                          (part.ends_with("\\Z") || part.ends_with("\\N") ||
                           part.ends_with("\\Q") || part.ends_with("\\R"));
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
    if (std::any_of(out.items.begin(), out.items.end(),
                    [](const MathObject& o) { return o.kind == Kind::kWords; })) {
      const bool words = std::all_of(out.items.begin(), out.items.end(), [](const MathObject& o) {
        return o.kind == Kind::kWords && !o.text.empty();
      });
      if (!words) {
        std::string text;
        for (std::string_view part : parts.parts)
          text += std::string(text.empty() ? "" : ", ") + std::string(part);
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
        std::all_of(out.items.begin() + 1, out.items.end(),
                    [](const MathObject& o) { return o.kind == Kind::kQuantity; })) {
      MathObject joined = out.items[0];  // x = 1, 2
      out.items[0] = joined.items[0];
      joined.items = {out};
      joined.difference.reset();
      return joined;
    }
    return out;
  }

  // f(x) or P(x, y): a function's name with its letters.
  static bool FunctionOf(std::string_view s) {
    if (s.size() < 4 || !IsLetter(s[0]) || s[1] != '(' || s.back() != ')') return false;
    return std::all_of(s.begin() + 2, s.end() - 1,
                       [](char c) { return IsLetter(c) || c == ',' || c == ' '; });
  }

  MathObject Relation(std::string_view s, const Parts& parts, int depth) {
    if (parts.parts.size() > 4) return Words(s);
    const auto& p = parts.parts;
    const auto& signs = parts.signs;
    std::vector<std::optional<MathReading>> e;
    for (std::string_view part : p) e.push_back(Whole(part, thousands_));
    const auto name = [&](size_t i) {
      return e[i] ? e[i]->expression.LoneSymbol() : std::string();
    };
    const auto constant = [&](size_t i) { return e[i] && RealValue(e[i]->expression).has_value(); };
    const bool equations =
        std::all_of(signs.begin(), signs.end(), [](std::string_view sign) { return sign == "="; });
    if (equations) {
      const size_t last = p.size() - 1;
      if (!name(0).empty() || FunctionOf(p[0]))
        return Assignment(name(0).empty() ? std::string(p[0]) : name(0), e[0], p[last], depth);
      bool constants = true;
      for (size_t i = 0; i < p.size(); ++i) constants = constants && constant(i);
      if (constants) return Read(p[last], depth + 1);
      if (auto measures = Measures(p.front(), p[last])) return *measures;
      if (!name(last).empty() && p.size() == 2) return Assignment(name(last), e[last], p[0], depth);
      const std::string label = CanonicalWords(p[0]);
      if (!e[0] && !label.empty() &&
          label.find_first_of("0123456789^_(){}[]\\") == std::string::npos) {
        return Read(p[last], depth + 1);  // "Area = 25"
      }
      // Three letters of geometry before a value: "AB = 5".
      if (e[0] && p.size() == 2 && constant(1) && p[0].size() <= 3 &&
          std::all_of(p[0].begin(), p[0].end(), IsLetter)) {
        return Assignment(std::string(p[0]), e[0], p[last], depth);
      }
    }
    if (signs.size() == 1 && signs[0] == "\\in")
      return name(0).empty() ? Words(s) : Read(p[1], depth + 1);
    const auto direction = [&](size_t i) { return signs[i][0]; };
    const auto closed = [&](size_t i) { return signs[i].size() == 2; };
    const bool order = std::all_of(signs.begin(), signs.end(),
                                   [](std::string_view x) { return x[0] == '<' || x[0] == '>'; });
    if (order && p.size() == 2) {
      const bool less = direction(0) == '<';
      if (!name(0).empty() && constant(1)) {
        const MathExpression& end = e[1]->expression;
        return less ? Ray(name(0), nullptr, &end, false, closed(0))
                    : Ray(name(0), &end, nullptr, closed(0), false);
      }
      if (!name(1).empty() && constant(0)) {
        const MathExpression& end = e[0]->expression;
        return less ? Ray(name(1), &end, nullptr, closed(0), false)
                    : Ray(name(1), nullptr, &end, false, closed(0));
      }
    }
    if (order && p.size() == 3 && direction(0) == direction(1) && !name(1).empty() && constant(0) &&
        constant(2)) {
      const bool less = direction(0) == '<';
      const size_t low = less ? 0 : 2, high = less ? 2 : 0;
      return Ray(name(1), &e[low]->expression, &e[high]->expression, closed(less ? 0 : 1),
                 closed(less ? 1 : 0));
    }
    if (order && p.size() == 2 && e[0] && e[1]) {
      const bool less = direction(0) == '<';
      if (auto solved =
              SolveInequality(e[less ? 0 : 1]->expression, e[less ? 1 : 0]->expression, closed(0)))
        return *solved;
    }
    if (order && p.size() == 3 && direction(0) == direction(1) && constant(0) && e[1] &&
        constant(2)) {  // 1 < 2x - 1 < 5
      const auto side = [&](size_t i) {
        const bool less = direction(i) == '<';
        return SolveInequality(e[less ? i : i + 1]->expression, e[less ? i + 1 : i]->expression,
                               closed(i));
      };
      const auto a = side(0), b = side(1);
      if (a && b && a->kind == Kind::kInterval && b->kind == Kind::kInterval)
        return Intersection(*a, *b);
    }
    if (p.size() == 2 && direction(0) == '!') {  // x \ne 3: the line without a point
      for (const size_t i : {0, 1}) {
        if (name(i).empty() || !constant(1 - i)) continue;
        return *Without(Ray(name(i), nullptr, nullptr, false, false),
                        QuantityObject({e[1 - i]->expression, std::nullopt}));
      }
      const auto zero = e[0] && e[1] ? SolveLinear(Difference(*e[0], *e[1])) : std::nullopt;
      if (zero)
        return *Without(Ray(zero->name, nullptr, nullptr, false, false),
                        QuantityObject({zero->place, std::nullopt}));
    }
    if (p.size() == 2 && e[0] && e[1] && signs[0] != "\\in") {
      MathObject out;
      out.kind = Kind::kRelation;
      const bool swapped = direction(0) == '>';
      out.relation = direction(0) == '!' ? '!' : direction(0) == '=' ? '=' : closed(0) ? 'L' : '<';
      out.difference = Difference(*e[swapped ? 1 : 0], *e[swapped ? 0 : 1]);
      return out;
    }
    return Words(s);
  }

  static MathExpression Difference(const MathReading& a, const MathReading& b) {
    return MathExpression::Join(MathOp::kSubtract, a.expression, b.expression);
  }

  // "9 cm = 0.09 m": either way of saying it, if they say the same.
  std::optional<MathObject> Measures(std::string_view first, std::string_view last) {
    auto a = ReadQuantity(first, thousands_), b = ReadQuantity(last, thousands_);
    if (!a || !b || a->kind != Kind::kQuantity || b->kind != Kind::kQuantity) return std::nullopt;
    const MathQuantity &x = a->quantities[0], &y = b->quantities[0];
    if (!x.unit || !y.unit || x.unit->powers != y.unit->powers || !x.unit->offset.zero())
      return std::nullopt;
    const auto based = [](const MathQuantity& q) {
      return MathExpression::Join(MathOp::kMultiply, q.value,
                                  MathExpression::Constant(q.unit->factor));
    };
    if (!SameValue(based(x), based(y))) return std::nullopt;
    b->quantities.push_back(x);
    return b;
  }

  MathObject Assignment(const std::string& name, const std::optional<MathReading>& left,
                        std::string_view right, int depth) {
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
    if (auto vector = Vector(s, depth);
        vector && (vector->kind == Kind::kMatrix || !BeforeTranspose(s).empty()))
      return vector;
    if (!Encloses(s)) return VectorSum(s, depth);
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
        if (element && !element->expression.LoneSymbol().empty())
          return Read(inside.substr(bar + 1), depth + 1);
      }
      return Elements(Kind::kSet, parts.parts, depth);
    }
    if (s.back() != ')' && s.back() != ']') return std::nullopt;
    if (parts.parts.size() == 1) {
      return s.front() == '(' && s.back() == ')' ? std::optional(Read(inside, depth + 1))
                                                 : std::nullopt;
    }
    const bool left = s.front() == '[', right = s.back() == ']';
    if (parts.parts.size() == 2 && (left || right)) {
      if (auto interval = Interval(parts.parts, left, right, depth)) return interval;
    }
    if (left != right) return std::nullopt;
    // [[1, 2], [3, 4]], as code writes a matrix.
    const bool rows =
        left && std::all_of(parts.parts.begin(), parts.parts.end(), [](std::string_view row) {
          return row.starts_with('[') && Encloses(row);
        });
    if (rows)
      return Rows(
          parts.parts, 1,
          [](std::string_view t, size_t i) -> size_t { return t[i] == ',' ? 1 : 0; }, depth);
    if (left && parts.parts.size() == 2) return std::nullopt;
    return Elements(Kind::kTuple, parts.parts, depth);
  }

  // Rows of cells; `skip` bytes of each row's text at both ends are its brackets.
  std::optional<MathObject> Rows(const std::vector<std::string_view>& rows, size_t skip, Sign sign,
                                 int depth) {
    MathObject out;
    out.kind = Kind::kMatrix;
    for (std::string_view row : rows) {
      if (row.empty()) continue;
      row = row.substr(skip, row.size() - 2 * skip);
      out.items.push_back(Elements(Kind::kTuple, Split(row, thousands_, sign).parts, depth));
    }
    return out.items.size() > kMaxItems ? std::nullopt : std::optional(out);
  }

  // \begin{pmatrix}..\end{pmatrix}, also {matrix} and {array}, bare or in brackets. Bars make a
  // determinant, which is a number and no matrix.
  std::optional<MathObject> Matrix(std::string_view s, int depth) {
    if ((s.front() == '(' || s.front() == '[') && Encloses(s)) s = Trim(s.substr(1, s.size() - 2));
    if (!s.starts_with("\\begin{") || !s.ends_with('}')) return std::nullopt;
    const size_t close = s.find('}'), end = s.rfind("\\end{");
    if (end == std::string_view::npos || end < close || s.find("\\end{") != end)
      return std::nullopt;
    std::string_view name = s.substr(7, close - 7);
    if (name.ends_with('*')) name.remove_suffix(1);
    static constexpr std::string_view kNames[] = {"matrix",  "pmatrix",     "bmatrix",
                                                  "Bmatrix", "smallmatrix", "array"};
    if (std::find(std::begin(kNames), std::end(kNames), name) == std::end(kNames))
      return std::nullopt;
    std::string inside(Trim(s.substr(close + 1, end - close - 1)));
    // {cc} of an array and [r] of a starred matrix say how columns are aligned.
    if (name == "array" && inside.starts_with("{") && inside.find('}') != std::string::npos) {
      inside.erase(0, inside.find('}') + 1);
    } else if (inside.starts_with("[") && inside.size() > 2 && inside[2] == ']' &&
               IsLetter(inside[1])) {
      inside.erase(0, 3);
    }
    for (size_t at; (at = inside.find("\\hline")) != std::string::npos;) inside.erase(at, 6);
    const Parts rows = Split(Trim(inside), thousands_, [](std::string_view t, size_t i) -> size_t {
      return t.substr(i).starts_with("\\\\") ? 2 : 0;
    });
    return Rows(
        rows.parts, 0, [](std::string_view t, size_t i) -> size_t { return t[i] == '&' ? 1 : 0; },
        depth);
  }

  // Without the ^T at its end; empty: it has none.
  static std::string_view BeforeTranspose(std::string_view s) {
    for (std::string_view sign :
         {"^T", "^{T}", "^\\top", "^{\\top}", "^\\intercal", "^{\\intercal}"}) {
      if (s.ends_with(sign)) return Trim(s.substr(0, s.size() - sign.size()));
    }
    return "";
  }

  // A matrix or a tuple, transposed or not.
  std::optional<MathObject> Vector(std::string_view s, int depth) {
    const std::string_view base = BeforeTranspose(s);
    if (!base.empty()) s = base;
    if (s.empty()) return std::nullopt;
    auto out = Matrix(s, depth);
    const bool brackets =
        (s.front() == '(' && s.back() == ')') || (s.front() == '[' && s.back() == ']');
    if (!out && brackets && Encloses(s) && (s.front() == '(' || !base.empty())) {
      const Parts parts = Split(s.substr(1, s.size() - 2), false, ListSign);
      if (parts.parts.size() > 1) out = Elements(Kind::kTuple, parts.parts, depth);
    }
    return !out || base.empty() ? out : Transposed(*out);
  }

  // Sums of vectors, each with a factor before it: "2(1, 2)", "A + tB", "-\frac{1}{2}A".
  std::optional<MathObject> VectorSum(std::string_view s, int depth) {
    if (s.find("\\begin{") == std::string_view::npos && s.find(',') == std::string_view::npos)
      return std::nullopt;
    const Parts terms = Split(s, thousands_, [](std::string_view t, size_t i) -> size_t {
      size_t before = i;
      while (before > 0 && t[before - 1] == ' ') --before;
      const bool binary = before > 0 && std::string_view("+-*/^_({[,").find(t[before - 1]) ==
                                            std::string_view::npos;
      return binary && (t[i] == '+' || t[i] == '-') ? 1 : 0;
    });
    if (terms.parts.size() > kMaxVectors) return std::nullopt;
    std::optional<MathObject> sum;
    for (size_t i = 0; i < terms.parts.size(); ++i) {
      const std::string_view term = terms.parts[i];
      const size_t at = VectorPlace(term);
      if (at == std::string_view::npos) return std::nullopt;
      std::string_view factor = Trim(term.substr(0, at));
      if (factor.ends_with('*')) factor = Trim(factor.substr(0, factor.size() - 1));
      // "P(1, 2)" is a point's name, or a function.
      if (terms.parts.size() == 1 && factor.size() == 1 && IsLetter(factor[0]) && term[at] != '\\')
        return std::nullopt;
      auto vector = Vector(term.substr(at), depth);
      if (vector && !factor.empty()) {
        const auto by = Whole(factor == "-" ? "-1" : factor, thousands_);
        vector = by ? Scaled(*vector, by->expression) : std::nullopt;
      }
      if (vector && i > 0 && terms.signs[i - 1] == "-")
        vector = Scaled(*vector, MathExpression::Constant(BigRational(-1)));
      if (vector && sum) vector = Added(*sum, *vector);
      if (!vector) return std::nullopt;
      sum = std::move(vector);
    }
    return sum;
  }
  // Where the bracket begins that ends the term.
  static size_t VectorPlace(std::string_view term) {
    const std::string_view base = BeforeTranspose(term);
    const std::string_view whole = base.empty() ? term : base;
    size_t place = std::string_view::npos, depth = 0;
    for (size_t i = 0; i < whole.size();) {
      const int bracket = math_split::Bracket(whole, i);
      if (bracket > 0 && depth++ == 0) place = i;
      if (bracket < 0 && depth > 0) --depth;
      i += bracket == 0 ? 1 : static_cast<size_t>(std::abs(bracket));
      // \end{name}: its braces belong to it.
      if (bracket == -4 && i < whole.size() && whole[i] == '{')
        i = std::min(whole.find('}', i), whole.size() - 1) + 1;
      if (bracket < 0 && depth == 0 && i < whole.size()) place = std::string_view::npos;
    }
    return depth == 0 ? place : std::string_view::npos;
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

MathObject ReadMathObject(std::string_view plain, bool thousands) {
  return Reader(thousands).Read(plain, 0);
}

}  // namespace plumb::reward
