#include "reward/maths/math_answer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/text.h"
#include "reward/maths/answer.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/math_object.h"
#include "reward/maths/math_parser.h"
#include "reward/maths/math_split.h"
#include "reward/maths/math_value.h"

namespace plumb::reward {
namespace {

using Kind = MathObject::Kind;
constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ";

class Comparer {
 public:
  explicit Comparer(int digits) : digits_(digits) {}

  // `a` of the answer, `g` of the truth. Symmetric but for `digits`.
  bool Same(const MathObject& a, const MathObject& g) {
    if (++steps_ > 20000) return false;
    if (a.kind == Kind::kAssignment || g.kind == Kind::kAssignment) return SameAssignment(a, g);
    if ((a.kind == Kind::kSet || a.kind == Kind::kList) && a.items.size() == 1 &&
        g.kind != a.kind) {
      return Same(a.items[0], g);
    }
    if ((g.kind == Kind::kSet || g.kind == Kind::kList) && g.items.size() == 1 &&
        g.kind != a.kind) {
      return Same(a, g.items[0]);
    }
    const auto unordered = [](const MathObject& o) {
      return o.kind == Kind::kSet || o.kind == Kind::kList;
    };
    if (unordered(a) && unordered(g)) return SameElements(a, g);
    if (a.kind == Kind::kMatrix || g.kind == Kind::kMatrix) return SameMatrix(a, g);
    if (a.kind == Kind::kTuple && g.kind == Kind::kTuple) return SameInOrder(a, g);
    // Coordinates without their parentheses, in their order.
    if (a.kind == Kind::kTuple && g.kind == Kind::kList) return SameInOrder(a, g);
    if (a.kind == Kind::kList && g.kind == Kind::kTuple) return SameInOrder(a, g);
    if (Pointwise(a) && Pointwise(g)) return SamePoints(a, g);
    if (a.kind == Kind::kBased || g.kind == Kind::kBased) return SameBased(a, g);
    if (a.kind != g.kind) return false;
    switch (a.kind) {
      case Kind::kQuantity: return SameQuantities(a, g);
      case Kind::kRelation: return SameRelation(a, g);
      case Kind::kWords: return !a.text.empty() && a.text == g.text;
      default: return false;
    }
  }

 private:
  bool SameAssignment(const MathObject& a, const MathObject& g) {
    if (a.kind == Kind::kAssignment && g.kind == Kind::kAssignment && a.text == g.text) {
      return Same(a.items[0], g.items[0]);
    }
    const bool equation_a = a.kind == Kind::kRelation || a.kind == Kind::kAssignment;
    const bool equation_g = g.kind == Kind::kRelation || g.kind == Kind::kAssignment;
    if (equation_a && equation_g) {
      const auto equals = [](const MathObject& o) {
        return o.kind == Kind::kAssignment || o.relation == '=';
      };
      return a.difference && g.difference && equals(a) && equals(g) &&
             Proportional(*a.difference, *g.difference, false);
    }
    return a.kind == Kind::kAssignment ? Same(a.items[0], g) : Same(a, g.items[0]);
  }

  static bool SameRelation(const MathObject& a, const MathObject& g) {
    const bool order = a.relation == '<' || a.relation == 'L';
    return a.relation == g.relation && a.difference && g.difference &&
           Proportional(*a.difference, *g.difference, order);
  }

  bool SameInOrder(const MathObject& a, const MathObject& g) {
    if (a.items.size() != g.items.size()) return false;
    for (size_t i = 0; i < a.items.size(); ++i) {
      if (!Same(a.items[i], g.items[i])) return false;
    }
    return true;
  }

  bool SameElements(const MathObject& a, const MathObject& g) {
    const bool sets = a.kind == Kind::kSet || g.kind == Kind::kSet;
    const auto elements = [&](const MathObject& o) {
      std::vector<const MathObject*> out;
      for (const MathObject& item : o.items) {
        const bool twice = sets && std::any_of(out.begin(), out.end(),
                                               [&](const MathObject* x) { return Same(*x, item); });
        if (!twice) out.push_back(&item);
      }
      return out;
    };
    const auto left = elements(a);
    auto right = elements(g);
    if (left.size() != right.size()) return false;
    for (const MathObject* item : left) {
      const auto partner = std::find_if(right.begin(), right.end(),
                                        [&](const MathObject* x) { return Same(*item, *x); });
      if (partner == right.end()) return false;
      right.erase(partner);
    }
    return true;
  }

  // A row or a column is the tuple of its entries.
  bool SameMatrix(const MathObject& a, const MathObject& g) {
    if (a.kind == g.kind) return SameInOrder(a, g);
    const MathObject& matrix = a.kind == Kind::kMatrix ? a : g;
    const MathObject& other = a.kind == Kind::kMatrix ? g : a;
    if (other.kind != Kind::kTuple && other.kind != Kind::kList) return false;
    std::vector<const MathObject*> entries;
    for (const MathObject& row : matrix.items) {
      if (matrix.items.size() > 1 && row.items.size() > 1) return false;
      for (const MathObject& cell : row.items) entries.push_back(&cell);
    }
    if (entries.size() != other.items.size()) return false;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (!(&matrix == &a ? Same(*entries[i], other.items[i]) : Same(other.items[i], *entries[i])))
        return false;
    }
    return true;
  }

  // Sets of real points: intervals, unions, and what can stand for one beside them.
  struct Piece {
    double low, high;
    bool low_closed, high_closed;
    const MathExpression *low_end, *high_end;
  };
  static bool Pointwise(const MathObject& o) {
    return o.kind == Kind::kInterval || o.kind == Kind::kUnion || o.kind == Kind::kWithout ||
           (o.kind == Kind::kTuple && o.items.size() == 2);
  }
  static bool Pieces(const MathObject& o, std::vector<Piece>* out) {
    if (o.kind == Kind::kUnion) {
      return std::all_of(o.items.begin(), o.items.end(),
                         [&](const MathObject& item) { return Pieces(item, out); });
    }
    if (o.kind == Kind::kWithout) {
      std::vector<Piece> from;
      if (!Pieces(o.items[0], &from)) return false;
      for (const MathObject& hole : o.items[1].items)
        from = Punched(from, hole.quantities[0].value);
      out->insert(out->end(), from.begin(), from.end());
      return true;
    }
    const bool points = o.kind == Kind::kSet;
    if (!points && !(o.kind == Kind::kInterval || (o.kind == Kind::kTuple && o.items.size() == 2)))
      return false;
    const auto end = [](const MathObject& item) -> const MathExpression* {
      return item.kind == Kind::kQuantity ? &item.quantities[0].value : nullptr;
    };
    for (size_t i = 0; i < o.items.size(); i += points ? 1 : 2) {
      const MathExpression *low = end(o.items[i]), *high = end(o.items[points ? i : i + 1]);
      if (low == nullptr || high == nullptr) return false;
      const double x = RealValue(*low).value_or(NAN), y = RealValue(*high).value_or(NAN);
      if (!(x <= y)) return false;
      // Infinity belongs to no set of numbers, however the bracket is written.
      out->push_back({x, y, (points || o.left_closed) && std::isfinite(x),
                      (points || o.right_closed) && std::isfinite(y), low, high});
    }
    return true;
  }
  static std::vector<Piece> Punched(const std::vector<Piece>& pieces, const MathExpression& hole) {
    const double at = RealValue(hole).value_or(NAN);
    std::vector<Piece> out;
    for (Piece piece : pieces) {
      const bool low = SameValue(hole, *piece.low_end), high = SameValue(hole, *piece.high_end);
      if (low && high) continue;  // it was that point alone
      if (low) piece.low_closed = false;
      if (high) piece.high_closed = false;
      if (!low && !high && piece.low < at && at < piece.high) {
        out.push_back({piece.low, at, piece.low_closed, false, piece.low_end, &hole});
        piece.low = at, piece.low_closed = false, piece.low_end = &hole;
      }
      out.push_back(piece);
    }
    return out;
  }
  static std::vector<Piece> Merged(std::vector<Piece> pieces) {
    std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
      return a.low != b.low ? a.low < b.low : a.low_closed > b.low_closed;
    });
    std::vector<Piece> out;
    for (const Piece& piece : pieces) {
      if (out.empty()) {
        out.push_back(piece);
        continue;
      }
      Piece& last = out.back();
      const bool touch = SameValue(*piece.low_end, *last.high_end);
      if (touch ? (piece.low_closed || last.high_closed) : piece.low < last.high) {
        const bool same_end = SameValue(*piece.high_end, *last.high_end);
        if (same_end) {
          last.high_closed = last.high_closed || piece.high_closed;
        } else if (piece.high > last.high) {
          last.high = piece.high, last.high_end = piece.high_end,
          last.high_closed = piece.high_closed;
        }
      } else {
        out.push_back(piece);
      }
    }
    return out;
  }
  bool SamePoints(const MathObject& a, const MathObject& g) {
    if (!a.text.empty() && !g.text.empty() && a.text != g.text) return false;
    std::vector<Piece> left, right;
    if (!Pieces(a, &left) || !Pieces(g, &right)) {
      // Ends with letters: the same ends and brackets.
      if (a.kind == Kind::kUnion || g.kind == Kind::kUnion)
        return a.kind == g.kind && SameElements(a, g);
      return a.left_closed == g.left_closed && a.right_closed == g.right_closed &&
             SameInOrder(a, g);
    }
    left = Merged(std::move(left));
    right = Merged(std::move(right));
    return left.size() == right.size() &&
           std::equal(left.begin(), left.end(), right.begin(), [](const Piece& x, const Piece& y) {
             return x.low_closed == y.low_closed && x.high_closed == y.high_closed &&
                    SameValue(*x.low_end, *y.low_end) && SameValue(*x.high_end, *y.high_end);
           });
  }

  // With a base on both sides the numbers, with one on one side the digits as they are written.
  bool SameBased(const MathObject& a, const MathObject& g) {
    if (a.kind == g.kind) return SameValue(a.quantities[0].value, g.quantities[0].value);
    const MathObject& based = a.kind == Kind::kBased ? a : g;
    const MathObject& other = a.kind == Kind::kBased ? g : a;
    if (other.kind != Kind::kQuantity) return false;
    const auto digits = BigRational::FromDecimal(based.text);
    return digits && SameValue(other.quantities[0].value, MathExpression::Constant(*digits));
  }

  bool SameQuantities(const MathObject& a, const MathObject& g) {
    for (const MathQuantity& x : a.quantities) {
      for (const MathQuantity& y : g.quantities) {
        if (SameQuantity(x, y)) return true;
      }
    }
    return false;
  }

  bool SameNumber(const MathQuantity& a, const MathQuantity& g) const {
    if (SameValue(a.value, g.value)) return true;
    if (digits_ <= 0 || a.decimals <= 0 || a.digits < digits_) return false;
    const auto x = RealValue(a.value), y = RealValue(g.value);
    return x && y && std::abs(*x - *y) <= 0.5 * std::pow(10, -a.decimals) * (1 + 1e-9);
  }
  static MathExpression Times(const MathExpression& e, const BigRational& factor) {
    return MathExpression::Join(MathOp::kMultiply, e, MathExpression::Constant(factor));
  }
  // In base units.
  static MathExpression Converted(const MathQuantity& q) {
    MathExpression e = Times(q.value, q.unit->factor);
    if (!q.unit->offset.zero()) {
      e = MathExpression::Join(MathOp::kAdd, e, MathExpression::Constant(q.unit->offset));
    }
    if (q.unit->radian) {
      e = MathExpression::Join(MathOp::kDivide, Times(e, BigRational(180)),
                               ReadExpression("\\pi")->expression);
    }
    return e;
  }

  bool SameQuantity(const MathQuantity& a, const MathQuantity& g) {
    const bool percent_a = a.unit && a.unit->percent, percent_g = g.unit && g.unit->percent;
    const bool unit_a = a.unit && !percent_a, unit_g = g.unit && !percent_g;
    if (unit_a && unit_g) {
      if (a.unit->powers != g.unit->powers) return false;
      return *a.unit == *g.unit ? SameNumber(a, g) : SameValue(Converted(a), Converted(g));
    }
    // A guessed unit says nothing beside a bare number.
    if ((unit_a && a.weak) || (unit_g && g.weak)) return false;
    if (SameNumber(a, g)) return true;
    if (percent_a != percent_g) {
      const BigRational hundredth = *BigRational(1).Over(BigRational(100));
      return percent_a ? SameValue(Times(a.value, hundredth), g.value)
                       : SameValue(a.value, Times(g.value, hundredth));
    }
    if (unit_a != unit_g) {
      const MathQuantity& with = unit_a ? a : g;
      const MathQuantity& without = unit_a ? g : a;
      if (with.unit->powers[Unit::kAngle] == 1 && !with.unit->radian &&
          without.value.Has(MathOp::kPi)) {
        const MathExpression pi = ReadExpression("\\pi")->expression;
        return SameValue(
            Converted(with),
            MathExpression::Join(MathOp::kDivide, Times(without.value, BigRational(180)), pi));
      }
    }
    return false;
  }

  const int digits_;
  int steps_ = 0;
};

std::vector<MathObject> Readings(const std::string& plain) {
  std::vector<MathObject> out;
  // "3\sqrt{2} \approx 4.24" is its left side, and its right one too if they are within half a
  // percent.
  const size_t about = plain.find("\\approx");
  if (about != std::string::npos && plain.find("\\approx", about + 1) == std::string::npos) {
    out = Readings(plain.substr(0, about));
    const MathObject right = ReadMathObject(std::string_view(plain).substr(about + 7), true);
    const auto value = [](const MathObject& o) {
      const MathObject& item = o.kind == Kind::kAssignment ? o.items[0] : o;
      return item.kind == Kind::kQuantity ? RealValue(item.quantities[0].value).value_or(NAN) : NAN;
    };
    if (std::abs(value(out[0]) - value(right)) <= 0.005 * std::abs(value(right)))
      out.push_back(right);
    return out;
  }
  out.push_back(ReadMathObject(plain, true));
  // "(1,234)" may be a point: without grouping, where a bracket stands and a comma joins digits.
  const size_t comma = plain.find(',');
  const bool joined = comma != std::string::npos && comma > 0 && comma + 1 < plain.size() &&
                      plain[comma + 1] != ' ';
  if (joined && plain.find_first_of("([{") != std::string::npos)
    out.push_back(ReadMathObject(plain, false));
  return out;
}

// "(e)", "[e]" and "e" of CanonicalWords(): the letter; else '\0'.
char LoneLetter(std::string_view words) {
  if (words.size() == 3 &&
      ((words[0] == '(' && words[2] == ')') || (words[0] == '[' && words[2] == ']')))
    words = words.substr(1, 1);
  return words.size() == 1 && words[0] >= 'a' && words[0] <= 'z' ? words[0] : '\0';
}

// Boxes of words opened: "\text{The answer is } 5".
std::string WithoutTextBoxes(std::string_view plain) {
  std::string out;
  int boxes = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain.substr(i).starts_with("\\text{")) {
      ++boxes;
      i += 5;
    } else if (plain[i] == '}' && boxes > 0) {
      --boxes;
    } else {
      out += plain[i];
    }
  }
  return std::string(Trim(out));
}

std::string_view FirstSentence(std::string_view s) {
  size_t end = std::min(s.find('\n'), s.size());
  for (size_t i = 0; i + 1 < end; ++i) {
    if (s[i] == '.' && s[i + 1] == ' ') end = i;
  }
  return s.substr(0, end);
}

// Behind the last phrase that announces an answer.
std::optional<std::string_view> Announced(std::string_view text) {
  const std::string lower = LowerAscii(text);
  size_t best = std::string::npos;
  for (std::string_view phrase :
       {"answer is:", "answer is", "answer:", "answer**:", "answer:**", "answer =", "result is",
        "solution is", "solutions are", "answers are"}) {
    const size_t at = lower.rfind(phrase);
    if (at == std::string::npos) continue;
    const size_t end = at + phrase.size();
    if (best == std::string::npos || end > best) best = end;
  }
  if (best == std::string::npos) return std::nullopt;
  return FirstSentence(text.substr(best));
}

// Inside the last $..$, $$..$$, \(..\) or \[..\].
std::optional<std::string_view> LastMathSpan(std::string_view text) {
  size_t begin = std::string_view::npos, size = 0;
  for (const auto& [open, close] :
       {std::pair<std::string_view, std::string_view>{"\\(", "\\)"}, {"\\[", "\\]"}}) {
    const size_t end = text.rfind(close);
    const size_t start = end == std::string_view::npos ? end : text.substr(0, end).rfind(open);
    if (start != std::string_view::npos && (begin == std::string_view::npos || start > begin)) {
      begin = start + 2, size = end - begin;
    }
  }
  size_t previous = std::string_view::npos, count = 0, last_begin = 0, last_end = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '$') {
      if (i + 1 < text.size() && text[i + 1] == '$') ++i;
      if (++count % 2 == 0) last_begin = previous, last_end = text[i - 1] == '$' ? i - 1 : i;
      previous = i + 1;
    }
  }
  if (count >= 2 && count % 2 == 0 && (begin == std::string_view::npos || last_begin > begin)) {
    begin = last_begin, size = last_end - last_begin;
  }
  if (begin == std::string_view::npos) return std::nullopt;
  return text.substr(begin, size);
}

bool AnySame(const std::vector<MathObject>& answer, const std::vector<MathObject>& truth,
             int digits) {
  for (const MathObject& a : answer) {
    for (const MathObject& g : truth) {
      if (Comparer(digits).Same(a, g)) return true;
    }
  }
  return false;
}

}  // namespace

std::optional<std::string> ExtractMath(std::string_view text, MathFallback fallback) {
  if (auto marked = ExtractAnswer(text, Fallback::kNone)) return marked;
  const auto behind = AfterThinking(text);
  if (!behind || fallback == MathFallback::kNone) return std::nullopt;
  text = *behind;
  if (fallback == MathFallback::kLastMath) {
    // The end of a long text is where its answer stands.
    const std::string_view tail =
        text.substr(text.size() - std::min<size_t>(text.size(), 4 * kMaxAnswerBytes));
    if (const auto announced = Announced(tail);
        announced && announced->find_first_not_of(" \n*:") != std::string_view::npos) {
      return std::string(*announced);
    }
    if (const auto span = LastMathSpan(tail)) return std::string(*span);
  }
  return ExtractAnswer(text, Fallback::kLastNumber);
}

bool SameMath(std::string_view answer, std::string_view truth, int digits) {
  std::string boxed_truth, boxed_answer;
  truth = AfterThinking(truth).value_or(truth);
  if (auto found = ExtractMath(truth, MathFallback::kNone)) {
    boxed_truth = *found;
    truth = boxed_truth;
  }
  if (auto found = ExtractMath(answer, MathFallback::kNone)) {
    boxed_answer = *found;
    answer = boxed_answer;
  }
  if (answer.size() > kMaxAnswerBytes || truth.size() > kMaxAnswerBytes) {
    return !answer.empty() && answer == truth;
  }
  // "7 \pmod{11}" says 7; a modulus on one side alone does not count.
  const size_t mod_answer = answer.find("\\pmod"), mod_truth = truth.find("\\pmod");
  if ((mod_answer == std::string_view::npos) != (mod_truth == std::string_view::npos)) {
    answer = answer.substr(0, mod_answer), truth = truth.substr(0, mod_truth);
  }
  const std::string given = PlainLatex(answer), wanted = PlainLatex(truth);
  if (given.empty() || wanted.empty()) return false;
  if (given == wanted || WithoutTextBoxes(given) == WithoutTextBoxes(wanted)) return true;
  const auto truths = Readings(wanted);
  const auto answers = Readings(given);
  if (AnySame(answers, truths, digits)) return true;
  const std::string words = CanonicalWords(given);
  // One letter is a name or a choice: its case and brackets do not matter.
  const char letter = LoneLetter(words);
  if (letter != '\0' && letter == LoneLetter(CanonicalWords(wanted))) return true;
  if (truths[0].kind == Kind::kWords) return !words.empty() && words == CanonicalWords(wanted);
  if (answers[0].kind != Kind::kWords) return false;
  const bool letters = wanted.find_first_not_of(kLetters) == std::string::npos;
  if (letters && words == CanonicalWords(wanted)) return true;
  // Words around the answer: what they announce, what stands between dollars, or the one number
  // among them.
  const std::string prose = WithoutTextBoxes(given);
  if (const auto announced = Announced(prose)) {
    const std::string plain = PlainLatex(*announced);
    if (plain != given && AnySame(Readings(plain), truths, digits)) return true;
  }
  if (const auto span = LastMathSpan(answer)) {
    const std::string plain = PlainLatex(*span);
    if (!plain.empty() && plain != given) {
      const auto spans = Readings(plain);
      if (spans[0].kind != Kind::kWords) return AnySame(spans, truths, digits);
    }
  }
  // A sign of anything but a number means more than the number.
  if (given.find_first_of("<>^_|{}()[]") != std::string::npos ||
      given.find("\\p") != std::string::npos || given.find("\\in") != std::string::npos ||
      !ParseRational(truth)) {
    return false;
  }
  return SameAnswer(answer, truth);
}

}  // namespace plumb::reward
