// reward/rules/safety.h: low, middle and high, what hides a word, lists from files, and what is
// refused.
#include "reward/rules/safety.h"

#include "tests/reward/rule_testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

TEST(Safety, LowMiddleHigh) {
  EXPECT_EQ(RuleValue("safety", {"words=bomb, kill him"}, "A nice day."), 1);
  EXPECT_EQ(RuleValue("safety", {"words=bomb, kill him"}, "a BOMB."), 0);
  EXPECT_EQ(RuleValue("safety", {"words=bomb, kill him"}, "Kill -- him"), 0)
      << "a phrase over punctuation";
  EXPECT_EQ(RuleValue("safety", {"words=bomb, kill him"}, "skill, bombast, kill"), 1)
      << "whole words only";
  EXPECT_EQ(RuleValue("safety", {"words=bomb", "limit=4"}, "bomb, bomb, bomb"), 0.25);
  EXPECT_EQ(RuleValue("safety", {"words=bomb", "limit=4"}, "bomb bomb bomb bomb bomb"), 0);
  EXPECT_EQ(
      RuleValue("safety", {"regex=\\d{3}-\\d{4}", "regex=(?i)secret", "limit=2"}, "call 555-1234"),
      0.5);
}

TEST(Safety, WhatHidesAWordIsUndone) {
  for (const char* text : {"bo\xE2\x80\x8Bmb", "bo\xC2\xADmb",
                           "\xEF\xBD\x82\xEF\xBD\x8F\xEF\xBD\x8D\xEF\xBD\x82", "BOMB", "_bomb_"}) {
    EXPECT_EQ(RuleValue("safety", {"words=bomb"}, text), 0) << text;
  }
  EXPECT_EQ(RuleValue("safety",
                      {"words=\xC3\x9C"
                       "bel"},
                      "das \xC3\xBC"
                      "bel"),
            0);
}

TEST(Safety, HitsAreShown) {
  const auto scores = MakeRule(TestPart("safety", "", {"words=bomb"}))
                          ->Score(TestGroup({"bomb bomb"}), After(std::chrono::seconds(1)));
  ASSERT_EQ(scores[0].details.size(), 1u);
  EXPECT_EQ(scores[0].details[0], (std::pair<std::string, double>("hits", 2)));
}

TEST(Safety, ListsFromFilesArePartOfTheDigest) {
  const testing::TempFolder folder;
  const std::string path = folder.path() + "/words.txt";
  const auto digest = [&](const std::string& text) {
    std::ofstream(path) << text;
    return MakeRule(TestPart("safety", "", {"words_file=" + path}))->digest();
  };
  const std::string one = digest("# listed\n\nbomb\r\nkill him\n");
  EXPECT_EQ(RuleValue("safety", {"words_file=" + path}, "bomb"), 0);
  EXPECT_EQ(RuleValue("safety", {"words_file=" + path}, "listed"), 1);
  EXPECT_EQ(one, digest("# listed\n\nbomb\r\nkill him\n"));
  EXPECT_NE(one, digest("bomb\n"));
  std::ofstream(folder.path() + "/patterns.txt") << "# two\n^x\n\\d\n";
  EXPECT_EQ(RuleValue("safety", {"regex_file=" + folder.path() + "/patterns.txt", "limit=2"}, "x1"),
            0);
  EXPECT_EQ(RuleValue("safety", {"regex_file=" + folder.path() + "/patterns.txt", "limit=2"}, "y1"),
            0.5);
}

TEST(Safety, Refusals) {
  EXPECT_NE(Refusal(TestPart("safety")).find("words="), std::string::npos);
  EXPECT_NE(Refusal(TestPart("safety", "", {"words=***"})).find("'***'"), std::string::npos);
  EXPECT_NE(Refusal(TestPart("safety", "", {"regex=(a)\\1"})).find("\\1"), std::string::npos);
  EXPECT_NE(Refusal(TestPart("safety", "", {"regex=("})).find("does not compile"),
            std::string::npos);
  EXPECT_NE(Refusal(TestPart("safety", "", {"words_file=/nonexistent"})).find("/nonexistent"),
            std::string::npos);
  Refusal(TestPart("safety", "", {"words=a", "limit=0"}));
}

}  // namespace
}  // namespace plumb::reward
