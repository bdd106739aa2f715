#include "environment/tools/arithmetic_games.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "environment/tools/calculator_tool.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;

Json Columns(const Prompt& prompt) {
  if (prompt.extra_json.empty() || TooDeep(prompt.extra_json, 64)) return Json::object();
  Json extra = Json::parse(prompt.extra_json, nullptr, /*allow_exceptions=*/false);
  return extra.is_object() ? extra : Json::object();
}

class CountdownSession : public ToolSession {
 public:
  CountdownSession(std::vector<std::string> numbers, std::string target, bool all)
      : numbers_(std::move(numbers)), target_(std::move(target)), all_(all) {}

  ToolResult Call(const Json& arguments, Deadline) override {
    const std::string text = arguments.value("expression", "");
    if (text.find_first_of("abcdefghijklmnopqrstuvwxyz%^") != std::string::npos ||
        text.find("**") != std::string::npos || text.find("//") != std::string::npos) {
      return {.text = "error: only numbers, brackets and + - * / are allowed", .failed = true};
    }
    const Evaluation value = Evaluate(text);
    if (!value.problem.empty()) return {.text = "error: " + value.problem, .failed = true};
    std::vector<std::string> left = numbers_;
    for (const std::string& literal : value.literals) {
      const auto it = std::find(left.begin(), left.end(), literal);
      if (it == left.end()) {
        const bool known = std::find(numbers_.begin(), numbers_.end(), literal) != numbers_.end();
        return {.text = literal + (known ? " is used too often" : " is none of the numbers")};
      }
      left.erase(it);
    }
    if (all_ && !left.empty()) return {.text = left[0] + " is not used"};
    if (value.exact != target_)
      return {.text = "that is " + value.shown + ", the target is " + target_};
    return {.text = "right", .failed = false, .reward = 1.0, .done = true};
  }

 private:
  const std::vector<std::string> numbers_;
  const std::string target_;
  const bool all_;
};

class Countdown : public Tool {
 public:
  std::string name() const override { return "countdown"; }
  std::string schema() const override {
    return R"({"name":"countdown","description":"Checks whether an expression of the given numbers )"
           R"(reaches the target.","parameters":{"type":"object","properties":{"expression":{)"
           R"("type":"string","description":"numbers, brackets and + - * /"}},)"
           R"("required":["expression"]}})";
  }
  std::unique_ptr<ToolSession> Begin(const Prompt& prompt, Problem* problem) override {
    const Json columns = Columns(prompt);
    Json numbers, target;
    for (const char* name : {"nums", "numbers"}) {
      if (columns.contains(name)) numbers = columns[name];
    }
    std::vector<std::string> texts;
    bool whole = numbers.is_array() && !numbers.empty() && numbers.size() <= 64;
    for (const Json& number : whole ? numbers : Json::array()) {
      whole = whole && number.is_number_integer();
      if (whole) texts.push_back(number.dump());
    }
    if (!whole) {
      *problem = "countdown: the row has no list of integers in a column nums or numbers";
      return nullptr;
    }
    std::string wanted = prompt.ground_truth;
    if (columns.contains("target") && columns["target"].is_number_integer())
      wanted = columns["target"].dump();
    const Evaluation exact = Evaluate(wanted);
    if (!exact.problem.empty()) {
      *problem = "countdown: the row has no integer in a column target, or as ground truth";
      return nullptr;
    }
    const bool all = columns.contains("use") && columns["use"] == "all";
    return std::make_unique<CountdownSession>(std::move(texts), exact.exact, all);
  }
};

class GuessSession : public ToolSession {
 public:
  explicit GuessSession(int64_t secret) : secret_(secret) {}
  ToolResult Call(const Json& arguments, Deadline) override {
    const Json& number = arguments["number"];
    if (!number.is_number()) return {.text = "error: 'number' has to be a number", .failed = true};
    const double guess = number.get<double>();
    if (guess < static_cast<double>(secret_)) return {.text = "higher"};
    if (guess > static_cast<double>(secret_)) return {.text = "lower"};
    return {.text = "right", .failed = false, .reward = 1.0, .done = true};
  }

 private:
  const int64_t secret_;
};

class GuessNumber : public Tool {
 public:
  std::string name() const override { return "guess_number"; }
  std::string schema() const override {
    return R"({"name":"guess_number","description":"Says whether the secret number is higher or )"
           R"(lower than a guess.","parameters":{"type":"object","properties":{"number":{)"
           R"("type":"integer","description":"the guess"}},"required":["number"]}})";
  }
  std::unique_ptr<ToolSession> Begin(const Prompt& prompt, Problem* problem) override {
    const std::string& text = prompt.ground_truth;
    const size_t digits = text.find_first_not_of("0123456789", text.starts_with('-'));
    if (text.empty() || text == "-" || text.size() > 15 || digits != std::string::npos) {
      *problem = "guess_number: the row's ground truth is no integer: '" + Shown(text, 40) + "'";
      return nullptr;
    }
    return std::make_unique<GuessSession>(std::stoll(text));
  }
};

}  // namespace

std::unique_ptr<Tool> MakeCountdown() { return std::make_unique<Countdown>(); }
std::unique_ptr<Tool> MakeGuessNumber() { return std::make_unique<GuessNumber>(); }

}  // namespace plumb::environment
