#include "environment/tools/calculator_tool.h"

#include <gmpxx.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

constexpr size_t kMaxText = 2000;
constexpr int kMaxDepth = 100;
constexpr size_t kMaxBits = 65536;
constexpr int kMaxDecimals = 30;

struct Wrong {
  std::string what;
};

size_t Bits(const mpq_class& v) {
  return mpz_sizeinbase(v.get_num_mpz_t(), 2) + mpz_sizeinbase(v.get_den_mpz_t(), 2);
}

mpq_class Checked(mpq_class v) {
  if (Bits(v) > kMaxBits) throw Wrong{"the number gets too large"};
  return v;
}

mpz_class Floor(const mpq_class& v) {
  mpz_class out;
  mpz_fdiv_q(out.get_mpz_t(), v.get_num_mpz_t(), v.get_den_mpz_t());
  return out;
}

mpq_class Divided(const mpq_class& a, const mpq_class& b) {
  if (b == 0) throw Wrong{"division by zero"};
  return Checked(a / b);
}

mpq_class Power(const mpq_class& base, const mpq_class& exponent) {
  if (exponent.get_den() != 1) throw Wrong{"only whole exponents are exact"};
  if (!exponent.get_num().fits_slong_p() || abs(exponent.get_num()) > 65536)
    throw Wrong{"the exponent is too large"};
  const long n = exponent.get_num().get_si();
  if (n < 0 && base == 0) throw Wrong{"division by zero"};
  const auto count = static_cast<unsigned long>(n < 0 ? -n : n);
  if (Bits(base) * count > 2 * kMaxBits && base != 1 && base != -1 && base != 0)
    throw Wrong{"the number gets too large"};
  mpq_class out;
  mpz_pow_ui(out.get_num_mpz_t(), base.get_num_mpz_t(), count);
  mpz_pow_ui(out.get_den_mpz_t(), base.get_den_mpz_t(), count);
  out.canonicalize();
  return Checked(n < 0 ? mpq_class(1) / out : out);
}

// Half to even, as Python rounds.
mpq_class Rounded(const mpq_class& v, const mpq_class& digits) {
  if (digits.get_den() != 1 || abs(digits.get_num()) > 1000)
    throw Wrong{"round takes a whole number of digits"};
  const mpq_class scale = Power(10, digits);
  const mpq_class scaled = v * scale;
  mpz_class down = Floor(scaled);
  const mpq_class rest = scaled - down;
  if (rest > mpq_class(1, 2) || (rest == mpq_class(1, 2) && mpz_odd_p(down.get_mpz_t()))) ++down;
  return mpq_class(down) / scale;
}

class Parser {
 public:
  Parser(std::string_view text, std::vector<std::string>* literals)
      : text_(text), literals_(literals) {}

  mpq_class Whole() {
    mpq_class v = Sum();
    Blank();
    if (at_ < text_.size()) throw Wrong{"it cannot be read from '" + Rest() + "' on"};
    return v;
  }

 private:
  struct Level {
    explicit Level(int* depth) : depth(depth) {
      if (++*depth > kMaxDepth) throw Wrong{"it is nested too deep"};
    }
    ~Level() { --*depth; }
    int* depth;
  };

  void Blank() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n'))
      ++at_;
  }
  std::string Rest() const { return Shown(text_.substr(at_), 20); }
  bool Take(std::string_view token) {
    Blank();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  mpq_class Sum() {
    const Level level(&depth_);
    mpq_class v = Product();
    while (true) {
      if (Take("+")) v = Checked(v + Product());
      else if (Take("-")) v = Checked(v - Product());
      else return v;
    }
  }

  mpq_class Product() {
    mpq_class v = Signed();
    while (true) {
      Blank();
      if (text_.substr(at_, 2) == "**") return v;  // behind a bracket that Power has read
      if (Take("//")) v = Floor(Divided(v, Signed()));
      else if (Take("*")) v = Checked(v * Signed());
      else if (Take("/")) v = Divided(v, Signed());
      else if (Take("%")) {
        const mpq_class by = Signed();
        v = Checked(v - by * mpq_class(Floor(Divided(v, by))));
      } else {
        return v;
      }
    }
  }

  mpq_class Signed() {
    const Level level(&depth_);
    if (Take("-")) return -Signed();
    if (Take("+")) return Signed();
    mpq_class base = Atom();
    if (Take("**") || Take("^")) return Power(base, Signed());
    return base;
  }

  mpq_class Atom() {
    Blank();
    if (Take("(")) {
      mpq_class v = Sum();
      if (!Take(")")) throw Wrong{"a bracket is not closed"};
      return v;
    }
    if (at_ == text_.size()) throw Wrong{"it ends where a number belongs"};
    const char c = text_[at_];
    if ((c >= '0' && c <= '9') || c == '.') return Number();
    if (c >= 'a' && c <= 'z') return Function();
    throw Wrong{"a number belongs where '" + Rest() + "' stands"};
  }

  mpq_class Number() {
    std::string digits;
    size_t behind = 0;
    bool point = false;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '.' && !point) {
        point = true;
      } else if (c >= '0' && c <= '9') {
        digits += c;
        behind += point;
      } else if (c != '_') {
        break;
      }
    }
    if (digits.empty()) throw Wrong{"'.' is no number"};
    mpq_class v{mpz_class(digits, 10)};
    if (behind > 0) v /= mpq_class(Power(10, mpq_class(static_cast<long>(behind))));
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      const bool minus = at_ < text_.size() && text_[at_] == '-';
      if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) ++at_;
      std::string exponent;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') exponent += text_[at_++];
      if (exponent.empty() || exponent.size() > 5) throw Wrong{"an exponent cannot be read"};
      const mpq_class power = Power(10, mpq_class(mpz_class(exponent, 10)));
      if (minus) v /= power;
      else v *= power;
    }
    v = Checked(v);
    literals_->push_back(v.get_str());
    return v;
  }

  mpq_class Function() {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] >= 'a' && text_[at_] <= 'z') ++at_;
    const std::string name(text_.substr(begin, at_ - begin));
    if (!Take("(")) throw Wrong{"'" + Shown(name, 20) + "' is no number"};
    std::vector<mpq_class> given;
    do {
      given.push_back(Sum());
    } while (Take(","));
    if (!Take(")")) throw Wrong{"a bracket is not closed"};
    if (name == "min") return *std::min_element(given.begin(), given.end());
    if (name == "max") return *std::max_element(given.begin(), given.end());
    if (name == "round" && given.size() <= 2)
      return Rounded(given[0], given.size() > 1 ? given[1] : mpq_class(0));
    if (given.size() != 1) throw Wrong{name + " takes one number"};
    if (name == "abs") return abs(given[0]);
    if (name == "floor") return Floor(given[0]);
    if (name == "ceil") return -Floor(-given[0]);
    if (name == "sqrt") return Root(given[0]);
    throw Wrong{"there is no function " + Shown(name, 20) +
                "; there are abs, min, max, round, floor, ceil, sqrt"};
  }

  static mpq_class Root(const mpq_class& v) {
    if (v < 0) throw Wrong{"the square root of a negative number"};
    if (!mpz_perfect_square_p(v.get_num_mpz_t()) || !mpz_perfect_square_p(v.get_den_mpz_t()))
      throw Wrong{"that square root is no fraction, and results are exact here"};
    mpq_class out;
    mpz_sqrt(out.get_num_mpz_t(), v.get_num_mpz_t());
    mpz_sqrt(out.get_den_mpz_t(), v.get_den_mpz_t());
    return out;
  }

  const std::string_view text_;
  std::vector<std::string>* literals_;
  size_t at_ = 0;
  int depth_ = 0;
};

// With `decimals` digits behind the point, cut off.
std::string Decimal(const mpq_class& v, int decimals) {
  mpz_class scale;
  mpz_ui_pow_ui(scale.get_mpz_t(), 10, static_cast<unsigned long>(decimals));
  const mpz_class scaled = mpz_class(abs(v.get_num()) * scale) / v.get_den();
  std::string digits = scaled.get_str();
  if (digits.size() <= static_cast<size_t>(decimals))
    digits.insert(0, static_cast<size_t>(decimals) + 1 - digits.size(), '0');
  digits.insert(digits.size() - static_cast<size_t>(decimals), ".");
  return (v < 0 ? "-" : "") + digits;
}

std::string Written(const mpq_class& v) {
  if (v.get_den() == 1) return v.get_str();
  mpz_class rest = v.get_den();
  int twos = 0, fives = 0;
  while (rest % 2 == 0) rest /= 2, ++twos;
  while (rest % 5 == 0) rest /= 5, ++fives;
  const int decimals = std::max(twos, fives);
  if (rest == 1 && decimals <= kMaxDecimals) return Decimal(v, decimals);
  return v.get_str() + " (about " + Decimal(v, 12) + ")";
}

class CalculatorSession : public ToolSession {
 public:
  ToolResult Call(const nlohmann::json& arguments, Deadline) override {
    const Evaluation value = Evaluate(arguments.value("expression", ""));
    if (!value.problem.empty()) return {.text = "error: " + value.problem, .failed = true};
    return {.text = value.shown};
  }
};

class CalculatorTool : public Tool {
 public:
  std::string name() const override { return "calculator"; }
  std::string schema() const override {
    return R"({"name":"calculator","description":"Computes an arithmetic expression exactly.",)"
           R"("parameters":{"type":"object","properties":{"expression":{"type":"string",)"
           R"("description":"for example (3 + 4) * 5 / 2; + - * / // % ** and abs, min, max, )"
           R"(round, floor, ceil, sqrt"}},"required":["expression"]}})";
  }
  std::unique_ptr<ToolSession> Begin(const Prompt&, Problem*) override {
    return std::make_unique<CalculatorSession>();
  }
};

}  // namespace

Evaluation Evaluate(std::string_view expression) {
  Evaluation out;
  std::string text;
  for (size_t i = 0; i < expression.size(); ++i) {
    const auto sign = [&](std::string_view bytes) {
      if (expression.substr(i, bytes.size()) != bytes) return false;
      i += bytes.size() - 1;
      return true;
    };
    if (sign("\xC3\x97")) text += '*';
    else if (sign("\xC3\xB7")) text += '/';
    else if (sign("\xE2\x88\x92")) text += '-';
    else text += expression[i];
  }
  try {
    if (text.size() > kMaxText)
      throw Wrong{"it is longer than " + std::to_string(kMaxText) + " characters"};
    const mpq_class value = Parser(text, &out.literals).Whole();
    out.exact = value.get_str();
    out.shown = Written(value);
    if (out.shown.size() > 1000) throw Wrong{"the result is too long to be written"};
  } catch (const Wrong& wrong) {
    out.problem = wrong.what;
  }
  return out;
}

std::unique_ptr<Tool> MakeCalculatorTool() { return std::make_unique<CalculatorTool>(); }

}  // namespace plumb::environment
