// Which option an answer names (reward/multiple_choice.h).
#include "reward/multiple_choice.h"

#include <gtest/gtest.h>

namespace plumb::reward {
namespace {

const std::vector<Choice> kCities = {{'A', "London"}, {'B', "Paris"}, {'C', "New York"}, {'D', "A coin"}};

TEST(FindChoice, Forms) {
  struct Case {
    const char* text;
    char want;  // '-': none
  };
  for (const Case& c : {
           Case{"B", 'B'}, Case{"b", 'B'}, Case{"(B)", 'B'}, Case{"(b)", 'B'}, Case{"[B]", 'B'}, Case{"B.", 'B'}, Case{"B)", 'B'},
           Case{"**B**", 'B'}, Case{"\\boxed{B}", 'B'}, Case{"$\\boxed{\\text{(B)}}$", 'B'}, Case{"<answer> B </answer>", 'B'},
           Case{"Answer: B", 'B'}, Case{"answer: (b)", 'B'}, Case{"**Answer:** B", 'B'}, Case{"The answer is B.", 'B'},
           Case{"The correct answer is (B) Paris.", 'B'}, Case{"The correct option is B because of its tower.", 'B'},
           Case{"Thinking about A. The answer is B", 'B'}, Case{"A is wrong, so the answer is: B", 'B'},
           Case{"B) Paris", 'B'}, Case{"B. Paris", 'B'}, Case{"option B", 'B'}, Case{"Paris", 'B'}, Case{"paris.", 'B'},
           Case{"New York", 'C'}, Case{"It must be Paris", 'B'}, Case{"<answer>Paris</answer>", 'B'}, Case{"A coin", 'D'},
           Case{"I think (B) fits, yes (B).", 'B'}, Case{"#### B", 'B'}, Case{"The answer is A\nThe answer is B", 'B'},
           Case{"F", '-'}, Case{"", '-'}, Case{"A or B", '-'}, Case{"The answer is A or B", '-'}, Case{"(A) or (B)", '-'},
           Case{"Paris or London", '-'}, Case{"A dog barks", '-'}, Case{"Berlin", '-'}, Case{"\\boxed{A, B}", '-'},
           Case{"<think>Could be A or C.</think>\n\nB", 'B'}, Case{"<think>Answer: A. wait</think>\n\n(B)", 'B'},
           Case{"\\boxed{A}</think>B", 'B'}, Case{"<think>(A)</think> done", '-'}, Case{"<think>The answer is B", '-'},
           Case{"#### Step 1\nLook.\n\nAnswer: B", 'B'}, Case{"#### Conclusion\nThe answer is **B**.", 'B'},
           Case{"Because", '-'}, Case{"I cannot say", '-'}, Case{"Parisian", '-'},
       }) {
    const auto found = FindChoice(c.text, kCities, 'E');
    EXPECT_EQ(found.value_or('-'), c.want) << c.text;
  }
  EXPECT_EQ(FindChoice("F", {}, 'F'), 'F');
  EXPECT_EQ(FindChoice("\\boxed{\\frac{1}{2}}", {{'A', "0.5"}, {'B', "2"}}, 'E'), 'A') << "mathematics by its value";
  EXPECT_FALSE(FindChoice(std::string(1 << 20, '('), kCities, 'E'));
}

TEST(ReadChoices, ColumnsAndPrompts) {
  const auto letters = [](const std::vector<Choice>& choices) {
    std::string out;
    for (const Choice& c : choices) out += c.letter + c.text + "|";
    return out;
  };
  EXPECT_EQ(letters(ReadChoices("", R"({"choices":["x","y"]})")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"choices":{"text":["x","y"],"label":["A","B"]}})")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"options":{"A":"x","B":"y"}})")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("", R"({"options":[1,2]})")), "A1|B2|");
  EXPECT_EQ(letters(ReadChoices("Which?\nA) x\nB) y\nC) z", "")), "Ax|By|Cz|");
  EXPECT_EQ(letters(ReadChoices("Which?\n(A) x\n(B) y", "{}")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("Which?\nA. x\nB. y\nSay the letter.", "")), "Ax|By|");
  EXPECT_EQ(letters(ReadChoices("A question without options", "not json")), "");
  EXPECT_EQ(letters(ReadChoices("A. only one", "")), "");
}

}  // namespace
}  // namespace plumb::reward
