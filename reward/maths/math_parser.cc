#include "reward/maths/math_parser.h"

#include <algorithm>
#include <string>

#include "common/base/text.h"

namespace plumb::reward {
namespace {

struct Named {
  std::string_view name;
  MathOp op;
};
constexpr Named kFunctions[] = {
    {"sin", MathOp::kSin},       {"cos", MathOp::kCos},      {"tan", MathOp::kTan},
    {"cot", MathOp::kCot},       {"sec", MathOp::kSec},      {"csc", MathOp::kCsc},
    {"arcsin", MathOp::kAsin},   {"arccos", MathOp::kAcos},  {"arctan", MathOp::kAtan},
    {"asin", MathOp::kAsin},     {"acos", MathOp::kAcos},    {"atan", MathOp::kAtan},
    {"sinh", MathOp::kSinh},     {"cosh", MathOp::kCosh},    {"tanh", MathOp::kTanh},
    {"ln", MathOp::kLn},         {"exp", MathOp::kExp},      {"abs", MathOp::kAbsolute},
    {"log", MathOp::kLogarithm}, {"lg", MathOp::kLogarithm}, {"floor", MathOp::kFloor},
    {"ceil", MathOp::kCeiling},
};
constexpr Named kConstants[] = {{"pi", MathOp::kPi},
                                {"infty", MathOp::kInfinity},
                                {"infinity", MathOp::kInfinity},
                                {"inf", MathOp::kInfinity},
                                {"oo", MathOp::kInfinity}};
constexpr std::string_view kGreek[] = {
    "alpha",  "beta",  "gamma", "delta", "epsilon", "zeta",  "eta", "theta", "iota",  "kappa",
    "lambda", "mu",    "nu",    "xi",    "rho",     "sigma", "tau", "phi",   "chi",   "psi",
    "omega",  "Gamma", "Delta", "Theta", "Lambda",  "Sigma", "Phi", "Psi",   "Omega", "ell"};
// Short words that are not products of letters.
constexpr std::string_view kWords[] = {
    "no",  "on",  "of",  "or",  "to",  "so",  "do",  "go",  "yes", "odd", "all", "one", "two",
    "six", "ten", "any", "and", "not", "nor", "for", "is",  "it",  "in",  "if",  "at",  "by",
    "an",  "as",  "up",  "the", "are", "has", "was", "sum", "max", "min", "gcd", "lcm", "mod",
    "day", "man", "men", "car", "pen", "dog", "cat", "egg", "box", "bus", "DNE", "NaN", "per",
    "sq",  "her", "his", "she", "he",  "we",  "you", "red", "Sam", "Tom", "set", "boy", "son",
    "big", "hot", "old", "new", "low", "top", "him", "its", "may", "can", "sun", "sea", "ice",
    "tea", "air", "oil", "gas", "fox", "cow", "pig", "hen", "bee", "ant", "bat", "rat", "hat",
    "tax", "tie", "lie", "key", "map", "bag", "cup", "pie", "bad", "dad", "mom", "who", "why",
    "how", "few", "ok",  "my",  "me",  "us",  "am",  "be"};

template <size_t N>
const Named* Find(const Named (&table)[N], std::string_view name) {
  for (const Named& entry : table) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

// Recursive descent. Each reader returns the node it made, or -1 with the place where it began: the
// caller goes on without it. failed_ is set where the whole text is refused.
class MathParser {
 public:
  MathParser(std::string_view text, const MathReadingOptions& options)
      : s_(text), options_(options) {}

  std::optional<MathReading> Read() {
    const int root = Sum();
    if (root < 0 || failed_) return std::nullopt;
    MathReading out;
    out.used = place_;
    Keep(root, &out.expression);
    const auto& nodes = out.expression.nodes_;
    if (nodes[0].op == MathOp::kNumber &&
        (nodes.size() == 1 || (nodes.size() == 2 && nodes[1].op == MathOp::kNegate))) {
      out.decimals = decimals_, out.digits = digits_;
    }
    return out;
  }

 private:
  // Also counts steps: what is read twice after a wrong turn must not add up to a hang.
  struct Nesting {
    explicit Nesting(MathParser* p) : parser(p) {
      if (++parser->depth_ > MathExpression::kMaxNesting || ++parser->steps_ > kMaxSteps)
        parser->failed_ = true;
    }
    ~Nesting() { --parser->depth_; }
    MathParser* parser;
  };

  static constexpr int kMaxSteps = 20000;

  // Copies what hangs on `node`, parts first; wrong turns left nodes behind that nobody points to.
  int Keep(int node, MathExpression* out) const {
    MathNode n = e_.nodes_[static_cast<size_t>(node)];
    if (n.left >= 0) n.left = Keep(n.left, out);
    if (n.right >= 0) n.right = Keep(n.right, out);
    if (n.op == MathOp::kNumber) {
      out->numbers_.push_back(e_.numbers_[static_cast<size_t>(n.index)]);
      n.index = static_cast<int>(out->numbers_.size()) - 1;
    } else if (n.op == MathOp::kSymbol) {
      const std::string& name = e_.symbols_[static_cast<size_t>(n.index)];
      auto it = std::find(out->symbols_.begin(), out->symbols_.end(), name);
      if (it == out->symbols_.end()) it = out->symbols_.insert(out->symbols_.end(), name);
      n.index = static_cast<int>(it - out->symbols_.begin());
    }
    out->nodes_.push_back(n);
    return out->root();
  }
  int Add(MathOp op, int left, int right, int index = -1) {
    if (e_.nodes_.size() >= MathExpression::kMaxNodes) failed_ = true;
    if (failed_) return -1;
    e_.nodes_.push_back({op, left, right, index});
    return e_.root();
  }
  int Number(const BigRational& value) {
    e_.numbers_.push_back(value);
    return Add(MathOp::kNumber, -1, -1, static_cast<int>(e_.numbers_.size()) - 1);
  }
  int Symbol(const std::string& name) {
    if (name == "e") return Add(MathOp::kEuler, -1, -1);
    if (name == "i") return Add(MathOp::kImaginary, -1, -1);
    auto it = std::find(e_.symbols_.begin(), e_.symbols_.end(), name);
    if (it == e_.symbols_.end()) it = e_.symbols_.insert(e_.symbols_.end(), name);
    return Add(MathOp::kSymbol, -1, -1, static_cast<int>(it - e_.symbols_.begin()));
  }

  std::string_view Rest() const { return s_.substr(place_); }
  char At(size_t ahead = 0) const { return place_ + ahead < s_.size() ? s_[place_ + ahead] : '\0'; }
  void Spaces() {
    while (At() == ' ') ++place_;
  }
  // Behind spaces stands `sign`: read it.
  bool Accept(std::string_view sign) {
    const size_t begin = place_;
    Spaces();
    if (Rest().starts_with(sign)) {
      place_ += sign.size();
      return true;
    }
    place_ = begin;
    return false;
  }
  // A command of exactly this name.
  bool TakeCommand(std::string_view name) {
    const size_t begin = place_;
    Spaces();
    if (At() == '\\' && Rest().substr(1).starts_with(name) && !IsLetter(At(1 + name.size()))) {
      place_ += 1 + name.size();
      return true;
    }
    place_ = begin;
    return false;
  }

  int Sum() {
    const Nesting nesting(this);
    if (failed_) return -1;
    const size_t begin = place_;
    int left;
    if (TakeCommand("pm") || TakeCommand("mp")) {
      const bool plus = s_.substr(begin, place_ - begin).find("pm") != std::string_view::npos;
      const int zero = Number(BigRational(0)), value = Product();
      if (value < 0) return place_ = begin, -1;
      left = Add(plus ? MathOp::kPlusMinus : MathOp::kMinusPlus, zero, value);
    } else {
      left = Product();
    }
    while (left >= 0 && !failed_) {
      const size_t before = place_;
      MathOp op;
      if (TakeCommand("pm") || Accept("+/-") || Accept("+-")) {
        op = MathOp::kPlusMinus;
      } else if (TakeCommand("mp")) {
        op = MathOp::kMinusPlus;
      } else if (Accept("+")) {
        op = MathOp::kAdd;
      } else if (Accept("-")) {
        op = MathOp::kSubtract;
      } else {
        break;
      }
      const int right = Product();
      if (right < 0) {
        place_ = before;
        break;
      }
      left = Add(op, left, right);
    }
    return left;
  }

  int Product() {
    const Nesting nesting(this);
    if (failed_) return -1;
    int left = Unary();
    while (left >= 0 && !failed_) {
      const size_t before = place_;
      MathOp op = MathOp::kMultiply;
      bool sign = true;
      if (Accept("/") || Accept(":")) {
        op = MathOp::kDivide;
      } else if (!Accept("*")) {
        sign = false;
      }
      if (!sign) {
        const int mixed = MixedPart(left);
        if (mixed >= 0) {
          left = mixed;
          continue;
        }
        Spaces();
        // A number directly behind another is no product, and neither is | (it may close).
        const char last = s_[before - 1];
        const bool digit = IsDigit(At()) && (IsDigit(last) || last == '.' || last == '}');
        if (digit || At() == '.' || At() == '|' || At() == '-' || At() == '+') {
          place_ = before;
          break;
        }
      }
      const int right = sign ? Unary() : Power();
      if (right < 0) {
        place_ = before;
        break;
      }
      left = Add(op, left, right);
    }
    return left;
  }

  bool WholeLiteral(int node) const {
    const MathNode& n = e_.nodes_[static_cast<size_t>(node)];
    return n.op == MathOp::kNumber && e_.numbers_[static_cast<size_t>(n.index)].integer();
  }
  // Behind a whole number: " 1/2" or \frac{1}{2} adds when it is proper.
  int MixedPart(int whole) {
    const bool negative = e_.nodes_[static_cast<size_t>(whole)].op == MathOp::kNegate;
    const int literal = negative ? e_.nodes_[static_cast<size_t>(whole)].right : whole;
    if (!WholeLiteral(literal)) return -1;
    const size_t begin = place_;
    Spaces();
    int part = -1;
    if (IsDigit(At()) && place_ > begin) {
      const int above = Literal();
      if (above >= 0 && Accept("/")) {
        Spaces();
        const int below = IsDigit(At()) ? Literal() : -1;
        if (below >= 0 && Proper(above, below)) part = Add(MathOp::kDivide, above, below);
      }
    } else if (Rest().starts_with("\\frac")) {
      const int fraction = Power();
      if (fraction >= 0 && !failed_) {
        const MathNode n = e_.nodes_[static_cast<size_t>(fraction)];
        if (n.op == MathOp::kDivide && Proper(n.left, n.right)) part = fraction;
      }
    }
    if (part < 0 || failed_) return place_ = begin, -1;
    const int sum = Add(MathOp::kAdd, literal, part);
    return negative ? Add(MathOp::kNegate, -1, sum) : sum;
  }
  bool Proper(int above, int below) const {
    if (!WholeLiteral(above) || !WholeLiteral(below)) return false;
    const auto value = [this](int n) {
      return e_.numbers_[static_cast<size_t>(e_.nodes_[static_cast<size_t>(n)].index)];
    };
    return value(above).Compare(value(below)) < 0;
  }

  int Unary() {
    const Nesting nesting(this);
    if (failed_) return -1;
    const size_t begin = place_;
    if (Accept("-")) {
      const int value = Unary();
      return value < 0 ? (place_ = begin, -1) : Add(MathOp::kNegate, -1, value);
    }
    if (Accept("+")) {
      const int value = Unary();
      return value < 0 ? (place_ = begin, -1) : value;
    }
    return Power();
  }

  int Power() {
    int base = Atom();
    while (base >= 0 && !failed_) {
      const size_t before = place_;
      if (Accept("^")) {
        const int exponent = Exponent();
        if (exponent < 0) {
          place_ = before;
          break;
        }
        base = Add(MathOp::kPower, base, exponent);
      } else if (At() == '!' && At(1) != '=' && At(1) != '!') {
        ++place_;
        base = Add(MathOp::kFactorial, -1, base);
      } else if (functions_ > 0 && TakeCommand("degree")) {
        const int turned = Add(MathOp::kMultiply, base, Add(MathOp::kPi, -1, -1));
        base = Add(MathOp::kDivide, turned, Number(BigRational(180)));
      } else {
        break;
      }
    }
    return base;
  }
  int Exponent() {
    Spaces();
    const size_t begin = place_;
    if (At() == '-') {
      ++place_;
      const int value = Atom();
      return value < 0 ? (place_ = begin, -1) : Add(MathOp::kNegate, -1, value);
    }
    return Atom();
  }

  // Digits with thousands commas, point and exponent.
  int Literal() {
    std::string digits;
    const size_t begin = place_;
    while (IsDigit(At())) digits += s_[place_++];
    if (options_.thousands && !digits.empty() && digits.size() <= 3 && digits[0] != '0') {
      while (At() == ',' && IsDigit(At(1)) && IsDigit(At(2)) && IsDigit(At(3)) && !IsDigit(At(4))) {
        digits += s_.substr(place_ + 1, 3);
        place_ += 4;
      }
    }
    decimals_ = 0;
    if (At() == '.' && IsDigit(At(1))) {
      digits += '.';
      ++place_;
      while (IsDigit(At())) digits += s_[place_++], ++decimals_;
    } else if (At() == '.' && At(1) != '.' && !digits.empty()) {
      if (!Rest().substr(1).starts_with("\\overline")) {
        if (place_ + 1 == s_.size() || At(1) == ' ') ++place_;
      } else {
        digits += '.';
        ++place_;
      }
    }
    if (digits.empty()) return place_ = begin, -1;
    int exponent = 0;
    const size_t sign = At(1) == '-' || At(1) == '+' ? 2 : 1;
    if ((At() == 'e' || At() == 'E') && IsDigit(At(sign)) && functions_ == 0) {
      const bool negative = At(1) == '-';
      place_ += sign;
      for (int n = 0; IsDigit(At()); ++n, ++place_) {
        if (n < 4) exponent = exponent * 10 + (At() - '0');
      }
      if (negative) exponent = -exponent;
    }
    const size_t first = digits.find_first_not_of("0.");
    digits_ = first == std::string::npos ? 0
                                         : static_cast<int>(digits.size() - first) -
                                               (digits.find('.', first) != std::string::npos);
    auto value = BigRational::FromDecimal(digits, exponent);
    if (value && Rest().starts_with("\\overline{") && digits.find('.') != std::string::npos &&
        exponent == 0) {
      // 0.1\overline{6}: the block divided by a number of nines behind the digits before it.
      size_t at = place_ + 10;
      std::string block;
      while (at < s_.size() && IsDigit(s_[at]) && block.size() < 50) block += s_[at++];
      if (!block.empty() && at < s_.size() && s_[at] == '}') {
        const auto nines = BigRational::FromDecimal(std::string(block.size(), '9'), decimals_);
        const auto repeated = BigRational::FromDecimal(block)->Over(*nines);
        value = repeated ? value->Plus(*repeated) : std::nullopt;
        place_ = at + 1;
        decimals_ = -1;
      }
    }
    if (!value) {
      failed_ = true;
      return -1;
    }
    return Number(*value);
  }

  int Closed(std::string_view close, size_t begin) {
    const int inside = Sum();
    if (inside < 0 || !Accept(close)) return place_ = begin, -1;
    return inside;
  }

  // What follows \frac, \sqrt, \binom: a braced formula, else one digit, letter or command.
  int Argument() {
    Spaces();
    const size_t begin = place_;
    if (At() == '{') return ++place_, Closed("}", begin);
    if (IsDigit(At())) return Number(BigRational(s_[place_++] - '0'));
    if (IsLetter(At())) return options_.letters ? Symbol(std::string(1, s_[place_++])) : -1;
    return Atom();
  }

  std::string Subscript() {
    if (At() != '_') return "";
    std::string name = "_";
    size_t at = place_ + 1;
    if (at < s_.size() && s_[at] == '{') {
      const size_t close = s_.find('}', at);
      if (close == std::string_view::npos) return "";
      for (char c : s_.substr(at + 1, close - at - 1)) {
        if (c != ' ') name += c;
      }
      at = close + 1;
    } else {
      while (at < s_.size() && (IsDigit(s_[at]) || (name.size() == 1 && IsLetter(s_[at]))))
        name += s_[at++];
    }
    if (name.size() < 2) return "";
    place_ = at;
    return name;
  }

  int Function(const Named& function, size_t begin) {
    const Nesting nesting(this);
    if (failed_) return -1;
    ++functions_;
    int base = -1, power = -1;
    if (function.op == MathOp::kLogarithm) {
      Spaces();
      if (At() == '_') {
        ++place_;
        base = Argument();
        if (base < 0) return --functions_, place_ = begin, -1;
      } else {
        base = Number(BigRational(10));
      }
    }
    if (Accept("^")) {
      power = Exponent();
      if (power < 0) return --functions_, place_ = begin, -1;
    }
    Spaces();
    int argument;
    if (At() == '(' || At() == '{' || At() == '[') {
      argument = Atom();
    } else {
      argument = Accept("-") ? Add(MathOp::kNegate, -1, ArgumentProduct()) : ArgumentProduct();
    }
    --functions_;
    if (argument < 0 || failed_) return place_ = begin, -1;
    MathOp op = function.op;
    // \sin^{-1} is the inverse function.
    if (power >= 0 && e_.nodes_[static_cast<size_t>(power)].op == MathOp::kNegate &&
        (op == MathOp::kSin || op == MathOp::kCos || op == MathOp::kTan)) {
      op = op == MathOp::kSin ? MathOp::kAsin : op == MathOp::kCos ? MathOp::kAcos : MathOp::kAtan;
      power = -1;
    }
    const int value = Add(op, base, argument);
    return power < 0 ? value : Add(MathOp::kPower, value, power);
  }
  // "2x" and "\pi/4" behind a function name without parentheses.
  int ArgumentProduct() {
    int left = Power();
    while (left >= 0 && !failed_) {
      const size_t before = place_;
      Spaces();
      MathOp op = MathOp::kMultiply;
      if (At() == '/' && IsDigit(At(1))) {
        ++place_;
        op = MathOp::kDivide;
      } else if (At() == '(' || At() == '|' || IsDigit(At()) || NextIsFunction()) {
        place_ = before;
        break;
      }
      const int right = Power();
      if (right < 0) {
        place_ = before;
        break;
      }
      left = Add(op, left, right);
    }
    return left;
  }
  bool NextIsFunction() const {
    size_t at = place_ + (At() == '\\' ? 1 : 0), end = at;
    while (end < s_.size() && IsLetter(s_[end])) ++end;
    return Find(kFunctions, s_.substr(at, end - at)) != nullptr;
  }

  int Root(size_t begin) {
    int degree = -1;
    Spaces();
    if (At() == '[') {
      ++place_;
      degree = Closed("]", begin);
      if (degree < 0) return place_ = begin, -1;
    } else {
      degree = Number(BigRational(2));
    }
    Spaces();
    int radicand;
    // U+221A and plain text write \sqrt 12 and sqrt(12): the whole number.
    if (IsDigit(At()) && place_ > 0 && s_[place_ - 1] == ' ') {
      radicand = Literal();
    } else {
      radicand = Argument();
    }
    return radicand < 0 ? (place_ = begin, -1) : Add(MathOp::kRoot, degree, radicand);
  }

  int Atom() {
    const Nesting nesting(this);
    if (failed_) return -1;
    Spaces();
    const size_t begin = place_;
    const char c = At();
    if (IsDigit(c) || (c == '.' && IsDigit(At(1)))) return Literal();
    if (c == '(') return ++place_, Closed(")", begin);
    if (c == '[') return ++place_, Closed("]", begin);
    if (c == '{') return ++place_, Closed("}", begin);
    if (c == '|') {
      ++place_;
      const int inside = Closed("|", begin);
      return inside < 0 ? -1 : Add(MathOp::kAbsolute, -1, inside);
    }
    if (c == '\\') return CommandAtom(begin);
    if (IsLetter(c)) return LetterAtom(begin);
    return -1;
  }

  int CommandAtom(size_t begin) {
    size_t end = ++place_;
    while (end < s_.size() && IsLetter(s_[end])) ++end;
    const std::string_view name = s_.substr(place_, end - place_);
    place_ = end;
    if (name == "frac" || name == "binom") {
      const int above = Argument();
      const int below = above < 0 ? -1 : Argument();
      if (below < 0) return place_ = begin, -1;
      return Add(name == "frac" ? MathOp::kDivide : MathOp::kBinomial, above, below);
    }
    if (name == "sqrt") return Root(begin);
    if (name == "lfloor" || name == "lceil") {
      const int inside = Closed(name == "lfloor" ? "\\rfloor" : "\\rceil", begin);
      return inside < 0 ? -1
                        : Add(name == "lfloor" ? MathOp::kFloor : MathOp::kCeiling, -1, inside);
    }
    if (const Named* constant = Find(kConstants, name)) return Add(constant->op, -1, -1);
    if (const Named* function = Find(kFunctions, name)) return Function(*function, begin);
    const bool unit = !options_.letters && (name == "Omega" || name == "mu");  // ohm, micro
    if (!unit && std::find(std::begin(kGreek), std::end(kGreek), name) != std::end(kGreek)) {
      return Symbol("\\" + std::string(name) + Subscript());
    }
    return place_ = begin, -1;
  }

  int LetterAtom(size_t begin) {
    size_t end = place_;
    while (end < s_.size() && IsLetter(s_[end])) ++end;
    const std::string_view run = s_.substr(place_, end - place_);
    if (const Named* constant = Find(kConstants, run))
      return place_ = end, Add(constant->op, -1, -1);
    if (run == "sqrt") return place_ = end, Root(begin);
    if (const Named* function = Find(kFunctions, run);
        function != nullptr && (run.size() > 2 || run == "ln")) {
      place_ = end;
      return Function(*function, begin);
    }
    if (!options_.letters) return -1;
    if (std::find(std::begin(kGreek), std::end(kGreek), run) != std::end(kGreek) &&
        run.size() > 3) {
      place_ = end;
      return Symbol("\\" + std::string(run) + Subscript());
    }
    if (run.size() > 3 || std::find(std::begin(kWords), std::end(kWords), run) != std::end(kWords))
      return -1;
    ++place_;
    std::string name = std::string(1, run[0]) + Subscript();
    while (At() == '\'') name += s_[place_++];
    return Symbol(name);
  }

  const std::string_view s_;
  const MathReadingOptions options_;
  MathExpression e_;
  size_t place_ = 0;
  int depth_ = 0, steps_ = 0;
  int functions_ = 0;  // inside how many functions
  int decimals_ = -1, digits_ = 0;
  bool failed_ = false;
};

bool IsShortWord(std::string_view run) {
  return std::any_of(std::begin(kWords), std::end(kWords), [&](std::string_view word) {
    return std::equal(word.begin(), word.end(), run.begin(), run.end(),
                      [](char a, char b) { return (a | 0x20) == (b | 0x20); });
  });
}

std::optional<MathReading> ReadExpression(std::string_view plain,
                                          const MathReadingOptions& options) {
  return MathParser(plain, options).Read();
}

}  // namespace plumb::reward
