// Which option an answer names (reward/rules/multiple_choice.h).
#include "reward/rules/multiple_choice.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace plumb::reward {
namespace {

const std::vector<Choice> kCities = {
    {'A', "London"}, {'B', "Paris"}, {'C', "New York"}, {'D', "A coin"}};

TEST(FindChoice, Forms) {
  struct Case {
    const char* text;
    char want;  // '-': none
  };
  for (const Case& c : {
           Case{"B", 'B'},
           Case{"b", 'B'},
           Case{"(B)", 'B'},
           Case{"(b)", 'B'},
           Case{"[B]", 'B'},
           Case{"B.", 'B'},
           Case{"B)", 'B'},
           Case{"**B**", 'B'},
           Case{"\\boxed{B}", 'B'},
           Case{"$\\boxed{\\text{(B)}}$", 'B'},
           Case{"<answer> B </answer>", 'B'},
           Case{"Answer: B", 'B'},
           Case{"answer: (b)", 'B'},
           Case{"**Answer:** B", 'B'},
           Case{"The answer is B.", 'B'},
           Case{"The correct answer is (B) Paris.", 'B'},
           Case{"The correct option is B because of its tower.", 'B'},
           Case{"Thinking about A. The answer is B", 'B'},
           Case{"A is wrong, so the answer is: B", 'B'},
           Case{"B) Paris", 'B'},
           Case{"B. Paris", 'B'},
           Case{"option B", 'B'},
           Case{"Paris", 'B'},
           Case{"paris.", 'B'},
           Case{"New York", 'C'},
           Case{"It must be Paris", 'B'},
           Case{"<answer>Paris</answer>", 'B'},
           Case{"A coin", 'D'},
           Case{"I think (B) fits, yes (B).", 'B'},
           Case{"#### B", 'B'},
           Case{"The answer is A\nThe answer is B", 'B'},
           Case{"F", '-'},
           Case{"", '-'},
           Case{"A or B", '-'},
           Case{"The answer is A or B", '-'},
           Case{"(A) or (B)", '-'},
           Case{"Paris or London", '-'},
           Case{"A dog barks", '-'},
           Case{"Berlin", '-'},
           Case{"\\boxed{A, B}", '-'},
           Case{"<think>Could be A or C.</think>\n\nB", 'B'},
           Case{"<think>Answer: A. wait</think>\n\n(B)", 'B'},
           Case{"\\boxed{A}</think>B", 'B'},
           Case{"<think>(A)</think> done", '-'},
           Case{"<think>The answer is B", '-'},
           Case{"#### Step 1\nLook.\n\nAnswer: B", 'B'},
           Case{"#### Conclusion\nThe answer is **B**.", 'B'},
           Case{"Because", '-'},
           Case{"I cannot say", '-'},
           Case{"Parisian", '-'},
       }) {
    const auto found = FindChoice(c.text, kCities, 'E');
    EXPECT_EQ(found.value_or('-'), c.want) << c.text;
  }
  EXPECT_EQ(FindChoice("F", {}, 'F'), 'F');
  EXPECT_EQ(FindChoice("\\boxed{\\frac{1}{2}}", {{'A', "0.5"}, {'B', "2"}}, 'E'), 'A')
      << "mathematics by its value";
  EXPECT_FALSE(FindChoice(std::string(1 << 20, '('), kCities, 'E'));
}

TEST(FindChoice, SentencesThatNameOne) {
  const std::vector<Choice> cities = {
      {'A', "Paris"}, {'B', "London"}, {'C', "Rome"}, {'D', "Oslo"}};
  struct Case {
    const char* text;
    char want;
  };
  for (const Case& c : {
           Case{"B is the correct answer.", 'B'},
           Case{"B is correct.", 'B'},
           Case{"**B** is right", 'B'},
           Case{"(B) is correct", 'B'},
           Case{"Option B is the right one.", 'B'},
           Case{"A is wrong. B is correct.", 'B'},
           Case{"B is the answer because of its tower.", 'B'},
           Case{"A is close, but B is the best answer.", 'B'},
           Case{"B would be the correct choice", 'B'},
           Case{"The answer is A. B is wrong.", 'A'},
           Case{"Therefore B", 'B'},
           Case{"So, B.", 'B'},
           Case{"Thus, (B)", 'B'},
           Case{"In conclusion, B.", 'B'},
           Case{"So it is B", 'B'},
           Case{"The answer is not A. Therefore B.", 'B'},
           Case{"(A) is wrong since it is in France.\nSo B", 'B'},
           Case{"I would go with B.", 'B'},
           Case{"I'd say B", 'B'},
           Case{"I'll go with option B.", 'B'},
           Case{"My choice is B", 'B'},
           Case{"The answer to this question is B.", 'B'},
           Case{"We rule out A and C.\n\nB", 'B'},
           Case{"We rule out A.\n**B**", 'B'},
           Case{"B\n\nIt is the capital.", 'B'},
           Case{"\u7B54\u6848\u662FB", 'B'},
           Case{"\u7B54\u6848\uFF1AB\u3002", 'B'},
           Case{"\u6B63\u786E\u7B54\u6848\u662F B", 'B'},
           Case{"\u7B54\u6848\u4E3A\uFF08B\uFF09", 'B'},
           Case{"\u6545\u9009B", 'B'},
           Case{"\u9009B\u3002", 'B'},
           Case{"\u56E0\u6B64\u9009\u62E9B", 'B'},
           Case{"B\u662F\u6B63\u786E\u7684", 'B'},
           Case{"\u9009\u9879B\u6B63\u786E", 'B'},
           Case{"\u7B54\u6848\u662FB\uFF0C\u56E0\u4E3A", 'B'},
           Case{"\uFF22 is correct", 'B'},
           Case{"\u6B63\u89E3\u306FB\u3067\u3059", 'B'},
           Case{"La respuesta es B.", 'B'},
           Case{"La bonne r\u00E9ponse est B", 'B'},
           Case{"Die Antwort ist B.", 'B'},
           Case{"\u041E\u0442\u0432\u0435\u0442: B", 'B'},
           Case{"A is not correct.", '-'},
           Case{"I do not think B is correct.", '-'},
           Case{"A is correct or B is correct", '-'},
           Case{"neither A nor B is right", '-'},
           Case{"If B is correct then", '-'},
           Case{"Is B correct?", '-'},
           Case{"Bob is correct", '-'},
           Case{"So A dog barks", '-'},
           Case{"Therefore A or B", '-'},
           Case{"So, A, B.", '-'},
           Case{"\u7B54\u6848\u662FA\u6216B", '-'},
           Case{"We choose a path", '-'},
           Case{"Going with the flow", '-'},
           Case{"A and B", '-'},
       }) {
    EXPECT_EQ(FindChoice(c.text, cities, 'E').value_or('-'), c.want) << c.text;
  }
  for (const char* piece :
       {"B is correct. ", " is correct", "so ", "B\n", "\u9009", "\uFF1A", "answer to ", "not "}) {
    std::string text;
    while (text.size() < (1u << 20)) text += piece;
    const auto begin = std::chrono::steady_clock::now();
    FindChoice(text, cities, 'E');
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << piece;
  }
}

TEST(ReadChoices, ColumnsAndPrompts) {
  const auto letters = [](const std::vector<Choice>& choices) {
    std::string out;
    for (const Choice& c : choices) out += c.letter + c.text + "|";
    return out;
  };
  EXPECT_EQ(letters(ReadChoices("", R"({"choices":["x","y"]})")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"choices":{"text":["x","y"],"label":["A","B"]}})")),
            "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"options":{"A":"x","B":"y"}})")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"options":[1,2]})")), "A1|B2|");
  EXPECT_EQ(letters(ReadChoices("Which?\nA) x\nB) y\nC) z", "")), "Ax|By|Cz|");
  EXPECT_EQ(letters(ReadChoices("Which?\n(A) x\n(B) y", "{}")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("Which?\nA. x\nB. y\nSay the letter.", "")), "Ax|By|");
  const auto cities = ReadChoices(
      "\u54EA\u4E2A\uFF1F\nA\u3001\u5317\u4EAC\nB\uFF0E\u4E1C\u4EAC\nC\uFF1A\u9996\u5C14", "");
  EXPECT_EQ(letters(cities), "A\u5317\u4EAC|B\u4E1C\u4EAC|C\u9996\u5C14|");
  EXPECT_EQ(FindChoice("\u4E1C\u4EAC\u3002", cities, 'E'), 'B');
  const auto wide = ReadChoices("", R"({"choices":["\u7EA2\uFF0C\u84DD","\u7EFF"]})");
  EXPECT_EQ(FindChoice("\u7EA2\uFF0C\u84DD", wide, 'E'), 'A') << "wide signs on both sides";
  EXPECT_EQ(letters(ReadChoices("A question without options", "not json")), "");
  EXPECT_EQ(letters(ReadChoices("A. only one", "")), "");
}

}  // namespace
}  // namespace plumb::reward
