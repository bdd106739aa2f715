// Countdown and the guessing game, move by move.
#include "environment/tools/arithmetic_games.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plumb::environment {
namespace {

Prompt Row(const std::string& truth, const std::string& extra) {
  Prompt prompt;
  prompt.text = "play";
  prompt.ground_truth = truth;
  prompt.extra_json = extra;
  return prompt;
}

ToolResult Try(ToolSession& session, const std::string& expression) {
  return session.Call({{"expression", expression}}, After(std::chrono::seconds(1)));
}

TEST(ArithmeticGames, Countdown) {
  const auto tool = MakeCountdown();
  Problem problem;
  const auto game = tool->Begin(Row("10", R"({"nums":[2,3,3,4],"use":"all"})"), &problem);
  ASSERT_NE(game, nullptr) << *problem;
  EXPECT_EQ(Try(*game, "2+3").text, "3 is not used");
  EXPECT_EQ(Try(*game, "2+2+3+3").text, "2 is used too often");
  EXPECT_EQ(Try(*game, "5+5").text, "5 is none of the numbers");
  EXPECT_EQ(Try(*game, "2*3+3+4").text, "that is 13, the target is 10");
  EXPECT_TRUE(Try(*game, "2**3").failed);
  EXPECT_TRUE(Try(*game, "2+").failed);
  const ToolResult right = Try(*game, "2*3+4*3/3");
  EXPECT_EQ(right.text, "3 is used too often");
  const ToolResult won = Try(*game, "(4-2)*3/3+3+5");
  EXPECT_FALSE(won.done);
  const auto easy = tool->Begin(Row("", R"({"numbers":[2,5],"target":10})"), &problem);
  const ToolResult done = Try(*easy, "2*5");
  EXPECT_TRUE(done.done);
  EXPECT_EQ(done.reward, 1.0);
  for (const char* bad : {"{}", R"({"nums":[]})", R"({"nums":["2"]})", R"({"nums":[2.5]})"}) {
    EXPECT_EQ(tool->Begin(Row("10", bad), &problem), nullptr) << bad;
    EXPECT_NE(problem->find("no list of integers"), std::string::npos);
  }
  EXPECT_EQ(tool->Begin(Row("ten", R"({"nums":[1]})"), &problem), nullptr);
}

TEST(ArithmeticGames, GuessNumber) {
  const auto tool = MakeGuessNumber();
  Problem problem;
  const auto game = tool->Begin(Row("-12", ""), &problem);
  ASSERT_NE(game, nullptr);
  const auto guess = [&](int number) {
    return game->Call({{"number", number}}, After(std::chrono::seconds(1)));
  };
  EXPECT_EQ(guess(-20).text, "higher");
  EXPECT_EQ(guess(3).text, "lower");
  EXPECT_EQ(guess(-12).reward, 1.0);
  for (const char* bad : {"", "-", "1.5", "twelve", "9999999999999999"})
    EXPECT_EQ(tool->Begin(Row(bad, ""), &problem), nullptr) << bad;
}

}  // namespace
}  // namespace plumb::environment
