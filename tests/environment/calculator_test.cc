#include "environment/calculator.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::environment {
namespace {

EnvironmentReply Answer(Calculator& calculator, uint64_t episode, const std::string& text) {
  calculator.Act(episode, text);
  std::vector<EnvironmentReply> replies = calculator.Poll(After(std::chrono::seconds(1)));
  EXPECT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].episode, episode);
  return replies[0];
}

TEST(Calculate, WholeNumbersExactly) {
  const std::pair<const char*, int64_t> cases[] = {{"47+85", 132},
                                                   {" 2 + 3 * 4 ", 14},
                                                   {"(2+3)*4", 20},
                                                   {"-(7-10)", 3},
                                                   {"12-5-4", 3},
                                                   {"84/7/2", 6},
                                                   {"9223372036854775806+1", 9223372036854775807},
                                                   {"999999999*999999999", 999999998000000001}};
  for (const auto& [text, value] : cases) {
    const auto result = Calculate(text);
    ASSERT_TRUE(std::holds_alternative<int64_t>(result)) << text << std::get<std::string>(result);
    EXPECT_EQ(std::get<int64_t>(result), value) << text;
  }
}

TEST(Calculate, SaysWhatCannotBeComputed) {
  const std::pair<std::string, const char*> cases[] = {{"7/2", "rest"},
                                                       {"7/(3-3)", "division by 0"},
                                                       {"12+", "number is missing"},
                                                       {"(1+2", "not closed"},
                                                       {"1 2", "cannot be read"},
                                                       {"9223372036854775807+1", "64 bits"},
                                                       {"-9223372036854775807-2", "64 bits"},
                                                       {std::string(100, '('), "within each other"},
                                                       {std::string(300, '1'), "256 characters"}};
  for (const auto& [text, why] : cases) {
    const auto result = Calculate(text);
    ASSERT_TRUE(std::holds_alternative<std::string>(result)) << text;
    EXPECT_NE(std::get<std::string>(result).find(why), std::string::npos)
        << text << ": " << std::get<std::string>(result);
  }
}

TEST(ExpressionOf, IsWhatStandsInFrontOfTheEqualsSign) {
  EXPECT_EQ(ExpressionOf("<think>47+85="), "47+85");
  EXPECT_EQ(ExpressionOf("so 3 apples: 2 * (4+1) ="), "2 * (4+1)");
  EXPECT_EQ(ExpressionOf("x="), "");
}

TEST(Calculator, AnswersCallsAndEndsBehindATurnWithoutOne) {
  Calculator calculator(/*says_why=*/true);
  calculator.Begin(3, {}, 0);
  const auto begun = calculator.Poll(After(std::chrono::seconds(1)));
  ASSERT_EQ(begun.size(), 1u);
  EXPECT_TRUE(begun[0].text.empty() && !begun[0].done);
  EnvironmentReply reply = Answer(calculator, 3, "<think>47+85=");
  EXPECT_EQ(reply.text, "132");
  EXPECT_FALSE(reply.done || reply.failed_call);
  reply = Answer(calculator, 3, "and 1/3=");
  EXPECT_TRUE(reply.failed_call);
  EXPECT_EQ(reply.text, "error: the division leaves a rest");
  EXPECT_FALSE(reply.done);
  reply = Answer(calculator, 3, "nothing=");
  EXPECT_TRUE(reply.failed_call);
  reply = Answer(calculator, 3, "</think><answer>132</answer>");
  EXPECT_TRUE(reply.done && reply.text.empty() && reply.error.empty());
}

TEST(Calculator, WithoutLettersAFailedCallIsThreeDots) {
  Calculator calculator(/*says_why=*/false);
  calculator.Begin(1, {}, 0);
  calculator.Poll(After(std::chrono::seconds(1)));
  EXPECT_EQ(Answer(calculator, 1, "12+=").text, "...");
}

TEST(Calculator, KnowsItsEpisodes) {
  Calculator calculator(true);
  EXPECT_THROW(calculator.Act(1, "1+1="), Error);
  calculator.Begin(1, {}, 0);
  EXPECT_THROW(calculator.Begin(1, {}, 0), Error);
  calculator.Act(1, "1+1=");
  calculator.End(1);
  EXPECT_TRUE(calculator.Poll(After(std::chrono::milliseconds(1))).empty())
      << "a reply to an episode that has ended";
  EXPECT_THROW(calculator.Act(1, "1+1="), Error);
}

}  // namespace
}  // namespace plumb::environment
