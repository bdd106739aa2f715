// Finding and comparing answers (reward/maths/answer.h), table by table.
#include "reward/maths/answer.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

namespace plumb::reward {
namespace {

TEST(ExtractAnswer, FollowsTheMarkersInTheirOrder) {
  struct Case {
    const char* text;
    const char* want;  // null: none
  };
  for (const Case& c : {
           Case{"<think>2+2</think><answer>4</answer>", "4"},
           Case{"<answer>3</answer> no, <answer> 4 </answer>", "4"},
           Case{"<answer>open, then <answer>5</answer>", "5"},
           Case{"<answer>\\boxed{\\frac{1}{2}}</answer>", "\\frac{1}{2}"},
           Case{"so it is\n#### 1,234\n", "1,234"},
           Case{"#### 7\n#### 8\nbye", "8"},
           Case{"#### 9 <answer>10</answer>", "10"},
           // A heading of Markdown is no mark.
           Case{"#### Step 1\nWe multiply 6 by 7.\n\n\\boxed{42}", "42"},
           Case{"##### Note\n\\boxed{42}", "42"},
           Case{"\\boxed{1}\n#### 2", "1"},
           Case{"#### Step 1\nWe multiply.", nullptr},
           Case{"#### 1. Setup\nWe multiply.", nullptr},
           Case{"#### 2) Work\nWe multiply.", nullptr},
           Case{"see #### there\n", nullptr},
           Case{"#### New York", "New York"},
           Case{"#### 18 dollars\nbye", "18 dollars"},
           Case{"#### $x = \\frac{1}{2}$\nbye", "$x = \\frac{1}{2}$"},
           Case{"####72", "72"},
           Case{"  #### 72  \n\n", "72"},
           Case{"24 + 48 = 72 #### 72", "72"},
           Case{"24 + 48 = 72 #### 72\nbye", nullptr},
           Case{"##### 5", nullptr},
           Case{"####### 5", nullptr},
           // One that announces the answer.
           Case{"#### Final Answer\n42", "42"},
           Case{"### **Final Answer:**\n\n$$\n42\n$$\n\nbye", "$$\n42\n$$"},
           Case{"## The final answer is: 42\nbye", "42"},
           Case{"# Answer\nNew York\n\nbye", "New York"},
           Case{"# Answer\nWe first add 1 and 2 and so on.", nullptr},
           Case{"# Answers in general\n42", nullptr},
           Case{"```python\n# Answer\nx = 3\n```", nullptr},
           // Blank ones are passed over.
           Case{"\\boxed{42}, as asked in \\boxed{}.", "42"},
           Case{"<answer>42</answer> in <answer></answer> tags", "42"},
           Case{"\\fbox{8}", "8"},
           // Thinking is no answer.
           Case{"<think>so \\boxed{7}</think>\n\\boxed{42}", "42"},
           Case{"so \\boxed{7}</think>\n\\boxed{42}", "42"},
           Case{"<think>\\boxed{42}</think> I am done.", nullptr},
           Case{"<think>use <answer>1</answer></think>\n#### 42", "42"},
           Case{"<think>a</think>\\boxed{1}<think>b</think>\\boxed{2}", "2"},
           Case{"<think>\\boxed{42}", nullptr},
           Case{"\\boxed{42} <think> or not", nullptr},
           Case{"<think>a</think> \\boxed{1} <think>\\boxed{2}", nullptr},
           Case{"hence \\boxed{x^{2}+1}.", "x^{2}+1"},
           Case{"\\boxed{1} and \\boxed{2}", "2"},
           Case{"\\boxed{1} and \\boxed{2", "1"},
           Case{"\\boxed {3}", "3"},
           Case{"no marker but 12 apples", nullptr},
           Case{"<answer>never closed 5", nullptr},
           Case{"</answer>wrong way round<answer>", nullptr},
           Case{"####", nullptr},
           Case{"", nullptr},
       }) {
    const auto got = ExtractAnswer(c.text, Fallback::kNone);
    ASSERT_EQ(got.has_value(), c.want != nullptr) << c.text;
    if (c.want != nullptr) {
      EXPECT_EQ(*got, c.want) << c.text;
    }
  }
}

TEST(ExtractAnswer, FallsBackToTheLastNumberOnlyWhenAsked) {
  struct Case {
    const char* text;
    const char* want;
  };
  for (const Case& c :
       {Case{"first 3 then 12 apples.", "12"}, Case{"it costs $1,250.50.", "1,250.50"},
        Case{"so -4.", "-4"}, Case{"10-3", "3"}, Case{"about 3/4 of it", "3/4"},
        Case{"42% of 3%", "3%"}, Case{"The answer is 7.\n", "7"}, Case{".5 then", ".5"}}) {
    const auto got = ExtractAnswer(c.text, Fallback::kLastNumber);
    ASSERT_TRUE(got) << c.text;
    EXPECT_EQ(*got, c.want) << c.text;
  }
  EXPECT_FALSE(ExtractAnswer("no numbers at all", Fallback::kLastNumber));
}

TEST(ExtractAnswer, StaysLinearOnHostileText) {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "\\boxed{";
  EXPECT_FALSE(ExtractAnswer(text, Fallback::kLastNumber));
  for (const char* piece : {"#### Answer\n", "#### \n", "# answer\n\n", "####", "#### 1 ",
                            "<answer>", "</answer>", "<answer></answer>", "\\boxed{}", "<think>",
                            "</think>", "#### 7/7 cm\n", "# Answer\nab cd\n", "```\n"}) {
    text.clear();
    while (text.size() < (1u << 20)) text += piece;
    const auto begin = std::chrono::steady_clock::now();
    ExtractAnswer(text, Fallback::kLastNumber);
    ExtractAnswer(text + std::string(1 << 20, '\n'), Fallback::kLastNumber);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << piece;
  }
  text.assign(1 << 20, '7');
  ExtractAnswer(text, Fallback::kLastNumber);
  EXPECT_FALSE(ParseRational(text));
}

TEST(SameAnswer, NumbersAreRationals) {
  struct Case {
    const char *a, *b;
    bool same;
  };
  for (const Case& c : {
           Case{"4", "4", true},
           Case{"4", "5", false},
           Case{"4.0", "4", true},
           Case{"4.", "4", true},
           Case{"0.50", "1/2", true},
           Case{".5", "0.5", true},
           Case{"007", "7", true},
           Case{"-0", "0", true},
           Case{"1,234", "1234", true},
           Case{"1,234,567.80", "1234567.8", true},
           Case{"12,34", "1234", false},
           Case{"$18", "18", true},
           Case{"18$", "18", true},
           Case{"\xE2\x82\xAC"
                "18",
                "18", true},
           Case{"-$5", "-5", true},
           Case{"$-5", "-5", true},
           Case{"18 dollars", "18", true},
           Case{"\xE2\x88\x92"
                "3",
                "-3", true},
           Case{"3", "-3", false},
           Case{"+3", "3", true},
           Case{"50%", "50", true},
           Case{"50%", "0.5", true},
           Case{"50%", "50%", true},
           Case{"0.5", "50%", true},
           Case{"50\\%", "1/2", true},
           Case{"5%", "0.5", false},
           Case{"0.5%", "50%", false},
           Case{"1/3", "2/6", true},
           Case{"1/3", "0.3333333333333333", false},
           Case{"-1/2", "1/-2", true},
           Case{"\\frac{3}{4}", "0.75", true},
           Case{"\\dfrac{3}{4}", "3/4", true},
           Case{"\\frac34", "3/4", true},
           Case{"-\\frac{1}{2}", "-0.5", true},
           Case{"\\frac{-1}{2}", "-0.5", true},
           Case{"1 1/2", "1.5", true},
           Case{"1\\frac{1}{2}", "3/2", true},
           Case{"-1 1/2", "-1.5", true},
           Case{"1/0", "0", false},
           Case{"1e3", "1000", true},
           Case{"2.5E-1", "1/4", true},
           Case{"$\\frac{1}{2}$", "0.5", true},
           Case{"\\text{42}", "42", true},
           Case{"42^\\circ", "42", true},
           Case{"1{,}000", "1000", true},
           Case{"\\(7\\)", "7", true},
           Case{"**42**", "42", true},
           Case{"3 * 6 = 18", "18", true},
           Case{"x = 18", "18", true},
           Case{"18 or 19", "18", false},
           Case{"18 apples", "18", true},
           Case{"The answer is 18.", "18", true},
           Case{"5 km", "5", true},
           Case{"100000000000000000000000000000001", "100000000000000000000000000000001.0", true},
           Case{"100000000000000000000000000000001", "100000000000000000000000000000002", false},
           Case{"9007199254740993", "9007199254740992", false},  // equal as doubles
           Case{"0.1", "0.10000000000000000555", false},
           Case{"", "4", false},
           Case{"four", "4", false},
       }) {
    EXPECT_EQ(SameAnswer(c.a, c.b), c.same) << c.a << " | " << c.b;
  }
}

TEST(SameAnswer, WordsAndWorkedSolutions) {
  EXPECT_TRUE(SameAnswer("Paris.", "paris"));
  EXPECT_TRUE(SameAnswer(" New   York ", "New York"));
  EXPECT_FALSE(SameAnswer("Paris", "London"));
  EXPECT_TRUE(SameAnswer("\\text{(B)}", "(b)"));
  EXPECT_FALSE(SameAnswer("", ""));
  // The truth as GSM8K and MATH write it.
  EXPECT_TRUE(SameAnswer("72", "48/2 = <<48/2=24>>24 clips. 48+24 = 72\n#### 72"));
  EXPECT_TRUE(SameAnswer("1/2", "thus \\boxed{\\frac12}"));
}

// All 8,792 answers of GSM8K: each is a number, equal to itself in five spellings, and to none of
// its neighbours.
TEST(SameAnswer, AllOfGsm8k) {
  int rows = 0;
  for (const char* name : {"train", "test"}) {
    const std::string path =
        std::string(PLUMB_SOURCE_DIR "/../shared/data/gsm8k/") + name + ".jsonl.gz";
    gzFile file = gzopen(path.c_str(), "rb");
    if (file == nullptr) GTEST_SKIP() << "NOT TESTED: " << path << " is not here";
    std::string buffer(1 << 16, '\0');
    while (gzgets(file, buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
      const std::string truth = nlohmann::json::parse(buffer.c_str())["answer"];
      ++rows;
      const auto answer = ExtractAnswer(truth, Fallback::kNone);
      ASSERT_TRUE(answer) << truth;
      const auto number = ParseRational(*answer);
      ASSERT_TRUE(number) << *answer;
      ASSERT_EQ(number->denominator, "1") << *answer;
      const std::string sign = number->negative ? "-" : "";
      const std::string digits = sign + number->numerator;
      for (const std::string& same :
           {digits, digits + ".00", "$" + digits, "\\boxed{" + digits + "}", "x = " + digits,
            "The answer is " + digits + "."}) {
        ASSERT_TRUE(SameAnswer(ExtractAnswer(same, Fallback::kNone).value_or(same), truth))
            << same << " | " << *answer;
      }
      const long long value = std::stoll(digits);
      for (long long other : {value + 1, value - 1, value * 10 + 1, -value - 1}) {
        ASSERT_FALSE(SameAnswer(std::to_string(other), truth)) << other << " | " << *answer;
      }
      ASSERT_FALSE(SameAnswer(digits + ".5", truth)) << *answer;
    }
    gzclose(file);
  }
  EXPECT_EQ(rows, 8792);
}

}  // namespace
}  // namespace plumb::reward
