// Exact arithmetic: values, refusals, bounds.
#include "environment/tools/calculator_tool.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace plumb::environment {
namespace {

TEST(CalculatorTool, IsExact) {
  for (const auto& [text, value] : std::vector<std::pair<std::string, std::string>>{
           {"1 + 2 * 3", "7"},
           {"0.1 + 0.2", "0.3"},
           {"(1 + 2) * 3 - -4", "13"},
           {"2 ** 3 ** 2", "512"},
           {"-2 ** 2", "-4"},
           {"2^-2", "0.25"},
           {"7 // 2", "3"},
           {"-7 // 2", "-4"},
           {"-7 % 3", "2"},
           {"1/3", "1/3 (about 0.333333333333)"},
           {"10 / 4", "2.5"},
           {"6 × 7 ÷ 2 − 1", "20"},
           {"1e3 + 1.5e-1", "1000.15"},
           {"max(1, 2/3) + min(3, 4) + abs(-5)", "9"},
           {"round(2.5) + round(3.5) + round(1.245, 2)", "7.24"},
           {"floor(-1.5) + ceil(1.2)", "0"},
           {"sqrt(9/4)", "1.5"},
           {"99999999999999999999 * 99999999999999999999",
            "9999999999999999999800000000000000000001"}}) {
    EXPECT_EQ(Evaluate(text).shown, value) << text << " " << Evaluate(text).problem;
  }
  EXPECT_EQ(Evaluate("3*(5+2)").literals, (std::vector<std::string>{"3", "5", "2"}));
  EXPECT_EQ(Evaluate("0.50").exact, "1/2");
}

TEST(CalculatorTool, SaysWhatIsWrong) {
  for (const char* text :
       {"", "1 +", "(1", "1)", "1 / 0", "1 % 0", "0 ** -1", "2 ** 0.5", "sqrt(2)", "sqrt(-1)", "x",
        "sin(1)", "9 ** 9 ** 9", "1e99999 ** 9", "2 ** 65537", "1 2", "abs(1, 2)", ".", "\xff"}) {
    EXPECT_NE(Evaluate(text).problem, "") << text;
  }
  EXPECT_NE(Evaluate(std::string(1500, '(')).problem, "");
  EXPECT_NE(Evaluate(std::string(1500, '-')).problem, "");
}

TEST(CalculatorTool, TakesAnyBytes) {
  const std::string alphabet = "0123456789+-*/%^()., esqrtmaxround\xc3\x97";
  std::mt19937 random(3);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t n = random() % 16; n > 0; --n) text += alphabet[random() % alphabet.size()];
    const Evaluation value = Evaluate(text);
    EXPECT_EQ(value.problem.empty(), !value.shown.empty()) << text;
  }
}

}  // namespace
}  // namespace plumb::environment
