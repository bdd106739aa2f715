#include "replay/datasets/rows/arithmetic.h"

#include <set>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(ArithmeticTest, WorksItOutDigitByDigit) {
  EXPECT_EQ(ArithmeticPrompt(47, 85), "47+85=");
  EXPECT_EQ(ArithmeticCompletion(47, 85),
            "<think>7+5=12,4+8+1=13</think><answer>132</answer><eos>");
  EXPECT_EQ(ArithmeticCompletion(47, 5), "<think>7+5=12,4+0+1=5</think><answer>52</answer><eos>");
  EXPECT_EQ(ArithmeticCompletion(0, 0), "<think>0+0=0</think><answer>0</answer><eos>");
  EXPECT_EQ(ArithmeticCompletion(99, 1), "<think>9+1=10,9+0+1=10</think><answer>100</answer><eos>");
  EXPECT_EQ(ArithmeticCompletion(12, 34), "<think>2+4=6,1+3=4</think><answer>46</answer><eos>");
}

std::pair<int, int> Unordered(const std::string& text) {
  int a = 0, b = 0;
  EXPECT_EQ(std::sscanf(text.c_str(), "%d+%d=", &a, &b), 2) << text;
  return {std::min(a, b), std::max(a, b)};
}

TEST(ArithmeticTest, SetsAreDisjointUnderSwappedOperands) {
  for (const uint64_t seed : {1u, 2u, 77u}) {
    const ArithmeticSets sets = GenerateArithmetic({.seed = seed});
    std::set<std::pair<int, int>> eval, sft, train;
    for (const Prompt& p : sets.eval) eval.insert(Unordered(p.text));
    for (const auto& d : sets.sft) sft.insert(Unordered(d.prompt));
    for (const Prompt& p : sets.train) train.insert(Unordered(p.text));
    EXPECT_EQ(eval.size(), 200u);
    EXPECT_EQ(sft.size(), 200u);
    EXPECT_EQ(train.size(), 5050u - 400u);
    for (const auto& pair : eval) EXPECT_FALSE(sft.contains(pair) || train.contains(pair));
    for (const auto& pair : sft) EXPECT_FALSE(train.contains(pair));
  }
}

TEST(ArithmeticTest, AnswersAreRightAndShort) {
  const ArithmeticSets sets = GenerateArithmetic({.seed = 3});
  ASSERT_EQ(sets.sft_eval.size(), sets.eval.size());
  size_t longest = 0;
  for (size_t i = 0; i < sets.eval.size(); ++i) {
    int a = 0, b = 0;
    ASSERT_EQ(std::sscanf(sets.eval[i].text.c_str(), "%d+%d=", &a, &b), 2);
    EXPECT_EQ(sets.eval[i].ground_truth, std::to_string(a + b));
    EXPECT_EQ(sets.sft_eval[i].prompt, sets.eval[i].text);
    const std::string& text = sets.sft_eval[i].completion;
    EXPECT_NE(text.find("<answer>" + sets.eval[i].ground_truth + "</answer><eos>"),
              std::string::npos);
    // In tokens: every tag is one.
    longest = std::max(
        longest, text.size() - std::string("<think></think><answer></answer><eos>").size() + 5);
  }
  EXPECT_LE(longest, 24u);
}

TEST(ArithmeticTest, SameSeedSameSetsOtherSeedOthers) {
  const auto a = GenerateArithmetic({.seed = 5}), b = GenerateArithmetic({.seed = 5}),
             c = GenerateArithmetic({.seed = 6});
  EXPECT_EQ(a.train, b.train);
  EXPECT_EQ(a.sft, b.sft);
  EXPECT_EQ(a.eval, b.eval);
  EXPECT_NE(a.eval, c.eval);
}

TEST(ArithmeticTest, LargeNumbersAndExactCounts) {
  const auto sets = GenerateArithmetic(
      {.seed = 1, .digits = 6, .sft_examples = 30, .eval_prompts = 40, .train_prompts = 501});
  EXPECT_EQ(sets.train.size(), 501u);
  EXPECT_EQ(sets.train[500].row, 500u);
  EXPECT_EQ(
      GenerateArithmetic({.digits = 1, .sft_examples = 20, .eval_prompts = 20}).train.size() > 15,
      true);
}

TEST(ArithmeticTest, SaysWhenThereAreNotEnough) {
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "55 different sums",
                GenerateArithmetic({.digits = 1}));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "arithmetic_digits",
                GenerateArithmetic({.digits = 0}));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "arithmetic_digits",
                GenerateArithmetic(
                    {.digits = 1, .sft_examples = 20, .eval_prompts = 20, .train_prompts = 40}));
}

}  // namespace
}  // namespace plumb::replay
