// reward/rules/linear_regex.h: the same verdicts as backtracking, refusals, and patterns that hang
// a backtracker.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "reward/rules/linear_regex.h"

#include <pcre2.h>

#include <chrono>

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

LinearRegex Compiled(const std::string& pattern) {
  std::string error;
  LinearRegex regex = LinearRegex::Compile(pattern, &error);
  EXPECT_EQ(error, "") << pattern;
  return regex;
}

bool Backtracking(const std::string& pattern, const std::string& text) {
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF, &error, &at, nullptr);
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                match, nullptr);
  pcre2_match_data_free(match);
  pcre2_code_free(code);
  return found >= 0;
}

TEST(LinearRegex, SameVerdictsAsBacktracking) {
  const std::string patterns[] = {"abc",
                                  "^abc$",
                                  "a|b+c",
                                  "(?i)AbC",
                                  "\\bcat\\b",
                                  "[^a-c]x",
                                  "a{2,3}b",
                                  "(ab)*c",
                                  "(a*)*b",
                                  "^$",
                                  "",
                                  "\\d+\\.\\d",
                                  "(?m)^b",
                                  "a.c",
                                  "(?s)a.c",
                                  "\\p{Lu}",
                                  "x*?y",
                                  "(?P<n>a)b",
                                  "[]a]]",
                                  "\\Qa.b\\E",
                                  "c\\z",
                                  "(?:a|ab)(?:c|bcd)",
                                  "[[:alpha:]]+1",
                                  "\\x{e9}",
                                  "(?i)\xC3\x89",
                                  "}{",
                                  "(a+)+b",
                                  "\\x61+b",
                                  "\\pL+c",
                                  "\\0141+b",
                                  "\xC3\xA9+",
                                  "[ab]+?c",
                                  "\\Qa\\E+b",
                                  "a{,b"};
  const std::string texts[] = {"",     "abc",  "xabcx",    "bbc",      "ABC",  "the cat", "concat",
                               "dx",   "aab",  "aaab",     "ababc",    "aaaa", "3.5",     "a\nb",
                               "a\nc", "abcd", "\xC3\x89", "\xC3\xA9", "a]",   "]]",      "a.b",
                               "y",    "z1",   "ab",       "b",        "}{",   "a{,b",    "c"};
  for (const std::string& pattern : patterns) {
    const LinearRegex regex = Compiled(pattern);
    for (const std::string& text : texts) {
      EXPECT_EQ(regex.Find(text), Backtracking(pattern, text)) << pattern << " on " << text;
    }
  }
}

TEST(LinearRegex, RefusesWhatIsNotLinearAndWhatIsNoPattern) {
  for (const std::string pattern :
       {"(a)\\1", "(?<n>a)\\k<n>", "(?=a)", "(?!a)",  "(?<=a)b",   "(?<!a)b",   "(?>a)",   "a++",
        "a*+",    "a?+",           "a{2}+", "(?R)",   "(a(?1)?b)", "(?(1)a|b)", "(*FAIL)", "a\\Kb",
        "\\X",    "(?x) a",        "(?-1)", "(?C1)a", "(?i-x:a)",  "a{1001}",   "(",       "a)(b",
        "[a",     "a{2,1}",        "\\",    "(?&n)"}) {
    std::string error;
    LinearRegex::Compile(pattern, &error);
    EXPECT_NE(error.find("does not compile"), std::string::npos) << pattern << ": " << error;
    EXPECT_NE(error.find("linear"), std::string::npos) << pattern << ": " << error;
  }
  std::string error;
  LinearRegex::Compile(std::string(5000, 'a'), &error);
  EXPECT_NE(error.find("4096"), std::string::npos) << error;
}

// docs/rewards.md says so.
TEST(LinearRegex, DiffersFromPcre2WhereItIsSaid) {
  EXPECT_TRUE(Backtracking("a$", "a\n"));
  EXPECT_FALSE(Compiled("a$").Find("a\n"));
  EXPECT_TRUE(Compiled("a\\n?$").Find("a\n"));
  EXPECT_TRUE(Backtracking("\\s", "\v"));
  EXPECT_FALSE(Compiled("\\s").Find("\v"));
  EXPECT_TRUE(Backtracking("\\v", "\n"));
  EXPECT_FALSE(Compiled("\\v").Find("\n"));
  for (const char* pattern : {"\\w", "\\d", "\\b"}) {
    EXPECT_FALSE(Backtracking(pattern, "\u00E9 \u0664")) << pattern;
    EXPECT_FALSE(Compiled(pattern).Find("\u00E9 \u0664")) << pattern;
  }
}

// Each of them takes a backtracker exponential or quadratic time. The bound is 50 times what they
// take.
TEST(LinearRegex, PathologicalPatternsEnd) {
  const std::string many(100000, 'a');
  for (const std::string pattern :
       {"^(a+)+$", "(a|a)*c", "(a*)*c", "(?:a?){20}a{20}c", "a*a*a*a*c", "\\w*\\d\\w*!",
        "(.*)(.*)(.*)!x", "(a|aa)+$", "([a-z]+)*=", "(?i)a*b"}) {
    const LinearRegex regex = Compiled(pattern);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(regex.Find(many + "!")) << pattern;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_LT(seconds, 10) << pattern;
  }
}

TEST(LinearRegex, APatternOfManyStatesIsMatched) {
  const LinearRegex regex =
      Compiled("(?:a|b|c)*" + std::string("(?:a?b?c?d?){60}") + "[x-z]{300}q");
  const std::string text = std::string(1000, 'a') + std::string(1000, 'y');
  EXPECT_FALSE(regex.Find(text));
  EXPECT_TRUE(regex.Find(text + "q"));
}

TEST(LinearRegex, BytesThatAreNoUtf8) {
  EXPECT_TRUE(Compiled("a").Find("\xFF\xFE a"));
  EXPECT_TRUE(
      Compiled("^.a$").Find("\xFF"
                            "a"));
  EXPECT_FALSE(Compiled("b").Find("\xFF a"));
}

// Kind regex: linear where the pattern allows, bounded where it does not.
TEST(RegexRule, HardPatternsOnLongTexts) {
  const std::string many(100000, 'a');
  EXPECT_EQ(RuleValue("regex", {"pattern=^(a+)+$"}, many + "b"), 0);
  EXPECT_EQ(RuleValue("regex", {"pattern=(a)\\1b"}, "xaab"), 1);
  EXPECT_EQ(RuleValue("regex", {"pattern=foo(?=bar)"}, "foobar"), 1);
  const auto start = std::chrono::steady_clock::now();
  const auto scores = MakeRule(TestPart("regex", "", {"pattern=(?=a)\\w*\\d?!\\w"}))
                          ->Score(TestGroup({many + "!"}), After(std::chrono::seconds(1)));
  EXPECT_EQ(scores[0].failure, Failure::kReported)
      << "a pattern that cannot be linear gives up, it does not score 0";
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20);
}

}  // namespace
}  // namespace plumb::reward
