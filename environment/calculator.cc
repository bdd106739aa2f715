#include "environment/calculator.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/checked_math.h"
#include "common/base/error.h"

namespace plumb::environment {
namespace {

constexpr int kDeepest = 32;                // parentheses within each other
constexpr size_t kLongestExpression = 256;  // bytes

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

[[noreturn]] void Refuse(const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); }

// Sums of products of signed factors, by descent. Overflow is the checked functions' error.
class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  int64_t Whole() {
    const int64_t value = Sum(0);
    if (!rest_.empty()) Refuse("'" + std::string(rest_) + "' cannot be read");
    return value;
  }

 private:
  void Blanks() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }
  bool Take(char c) {
    Blanks();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  int64_t Sum(int depth) {
    int64_t value = Product(depth);
    for (;;) {
      if (Take('+')) value = CheckedAdd(value, Product(depth), "the number");
      else if (Take('-')) value = CheckedAdd(value, Negated(Product(depth)), "the number");
      else return Blanks(), value;
    }
  }
  int64_t Product(int depth) {
    int64_t value = Factor(depth);
    for (;;) {
      if (Take('*')) {
        value = CheckedMul(value, Factor(depth), "the number");
      } else if (Take('/')) {
        const int64_t by = Factor(depth);
        if (by == 0) Refuse("there is no division by 0");
        if (by == -1) value = Negated(value);
        else if (value % by != 0) Refuse("the division leaves a rest");
        else value /= by;
      } else {
        return value;
      }
    }
  }
  int64_t Factor(int depth) {
    if (depth > kDeepest) Refuse("too many parentheses within each other");
    if (Take('-')) return Negated(Factor(depth + 1));
    if (Take('(')) {
      const int64_t value = Sum(depth + 1);
      if (!Take(')')) Refuse("a parenthesis is not closed");
      return value;
    }
    Blanks();
    if (rest_.empty() || !IsDigit(rest_.front())) Refuse("a number is missing");
    int64_t value = 0;
    while (!rest_.empty() && IsDigit(rest_.front())) {
      value = CheckedAdd(CheckedMul(value, 10, "the number"), rest_.front() - '0', "the number");
      rest_.remove_prefix(1);
    }
    return value;
  }
  static int64_t Negated(int64_t value) { return CheckedMul(value, -1, "the number"); }

  std::string_view rest_;
};

std::string_view Trimmed(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

}  // namespace

std::variant<int64_t, std::string> Calculate(std::string_view expression) {
  if (expression.size() > kLongestExpression)
    return "it has more than " + std::to_string(kLongestExpression) + " characters";
  try {
    return Parser(expression).Whole();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kCorruption) return std::string("a number has more than 64 bits");
    return e.message();
  }
}

std::string_view ExpressionOf(std::string_view turn) {
  if (turn.ends_with('=')) turn.remove_suffix(1);
  size_t begin = turn.size();
  const auto part = [](char c) {
    return IsDigit(c) || std::string_view("+-*/() ").find(c) != std::string_view::npos;
  };
  while (begin > 0 && part(turn[begin - 1])) --begin;
  return Trimmed(turn.substr(begin));
}

void Calculator::Say(EnvironmentReply reply) {
  {
    MutexLock lock(mu_);
    replies_.push_back(std::move(reply));
  }
  said_.notify_all();
}

void Calculator::Begin(uint64_t episode, const Prompt&, uint32_t) {
  {
    MutexLock lock(mu_);
    if (!episodes_.insert(episode).second) {
      throw Error(ErrorCode::kInvalidArgument,
                  "episode " + std::to_string(episode) + " began already", "calculator");
    }
  }
  EnvironmentReply reply;
  reply.episode = episode;
  Say(std::move(reply));
}

void Calculator::Act(uint64_t episode, const std::string& text) {
  {
    MutexLock lock(mu_);
    if (!episodes_.contains(episode)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "episode " + std::to_string(episode) + " has not begun", "calculator");
    }
  }
  EnvironmentReply reply;
  reply.episode = episode;
  const std::string_view turn = Trimmed(text);
  if (!turn.ends_with('=')) {
    reply.done = true;
  } else {
    const std::string_view expression = ExpressionOf(turn);
    const auto result = expression.empty()
                            ? std::variant<int64_t, std::string>("no numbers stand before '='")
                            : Calculate(expression);
    if (const auto* value = std::get_if<int64_t>(&result)) {
      reply.text = std::to_string(*value);
    } else {
      reply.failed_call = true;
      reply.text = says_why_ ? "error: " + std::get<std::string>(result) : "...";
    }
  }
  Say(std::move(reply));
}

std::vector<EnvironmentReply> Calculator::Poll(Deadline deadline) {
  MutexLock lock(mu_);
  said_.wait_until(lock, deadline, [&]() PLUMB_REQUIRES(mu_) { return !replies_.empty(); });
  return std::exchange(replies_, {});
}

void Calculator::End(uint64_t episode) {
  MutexLock lock(mu_);
  episodes_.erase(episode);
  std::erase_if(replies_, [&](const EnvironmentReply& r) { return r.episode == episode; });
}

}  // namespace plumb::environment
