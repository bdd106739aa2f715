// What of a row counts as right (reward/part/truth.h), and the rules that ask: one text, several,
// or a clear failure.
#include "reward/part/truth.h"

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

using Texts = std::vector<std::string>;

Prompt Row(const std::string& truth, const std::string& extra = "") {
  Prompt prompt;
  prompt.ground_truth = truth;
  prompt.extra_json = extra;
  return prompt;
}

TEST(Truths, AListIsToldFromATextByItsColumn) {
  std::string why;
  EXPECT_EQ(Truths(Row("t"), &why), (Texts{"t"}));
  EXPECT_EQ(Truths(Row(R"(["4","four"])", R"({"answer":["4","four"]})"), &why),
            (Texts{"4", "four"}));
  EXPECT_EQ(Truths(Row("[4,0.5,true]", R"({"mapped":[4,0.5,true]})"), &why),
            (Texts{"4", "0.5", "true"}));
  EXPECT_EQ(
      Truths(Row(R"(["4"])", R"({"reward_model":{"ground_truth":["4"],"style":"rule"}})"), &why),
      (Texts{"4"}));
  EXPECT_EQ(Truths(Row("[1,2]"), &why), (Texts{"[1,2]"})) << "an interval";
  EXPECT_EQ(Truths(Row("[1,2]", R"({"answers":[1,2,3]})"), &why), (Texts{"[1,2]"}));
  EXPECT_EQ(Truths(Row("{1,2}"), &why), (Texts{"{1,2}"})) << "a set";
  EXPECT_EQ(Truths(Row(R"({"a":1})"), &why), (Texts{R"({"a":1})"})) << "a text that is an object";
  EXPECT_EQ(Truths(Row(R"(["a","b"])"), &why), (Texts{R"(["a","b"])"}));
  EXPECT_EQ(Truths(Row(R"(["a","b"])"), &why, /*quoted=*/true), (Texts{"a", "b"}));
  EXPECT_EQ(Truths(Row("[1,2]"), &why, /*quoted=*/true), (Texts{"[1,2]"}));
  EXPECT_EQ(Truths(Row(std::string(100000, '[')), &why).size(), 1u);
  EXPECT_EQ(Truths(Row("[1]", std::string(100000, '{')), &why), (Texts{"[1]"}));
}

TEST(Truths, WhatIsNoTextSaysWhy) {
  const auto why = [](const Prompt& prompt) {
    std::string why;
    EXPECT_TRUE(Truths(prompt, &why).empty()) << prompt.ground_truth;
    return why;
  };
  EXPECT_NE(why(Row("")).find("no ground truth"), std::string::npos);
  EXPECT_NE(why(Row(" \n")).find("no ground truth"), std::string::npos);
  const std::string object =
      why(Row(R"({"target":["4"],"unit":"m"})",
              R"({"reward_model":{"ground_truth":{"target":["4"],"unit":"m"}}})"));
  EXPECT_NE(object.find("'target', 'unit'"), std::string::npos) << object;
  EXPECT_NE(object.find("data.map"), std::string::npos) << object;
  EXPECT_NE(why(Row("[]", R"({"answer":[]})")).find("empty list"), std::string::npos);
  EXPECT_NE(why(Row("[[1],[2]]", R"({"answer":[[1],[2]]})")).find("list of lists"),
            std::string::npos);
  EXPECT_NE(why(Row(R"(["a",null])", R"({"answer":["a",null]})")).find("nulls"), std::string::npos);
}

// What stands in a column that nobody named is told to whoever has nothing to compare with.
TEST(Truths, AColumnThatLooksLikeTheRightAnswerIsNamed) {
  const auto why = [](const std::string& columns) {
    std::string why;
    EXPECT_TRUE(Truths(Row("", columns), &why).empty()) << columns;
    return why;
  };
  EXPECT_EQ(why(R"({"prompt":"1+1","solution":"2"})"),
            "the prompt has no ground truth to compare with; the column 'solution' looks like one: "
            "data.map = { answer = \"solution\" }");
  EXPECT_EQ(UsualTruths(Row("", R"({"gold":2,"final_answer":["2"],"answer":" "})")),
            (Texts{"final_answer", "gold"}));
  for (const char* none :
       {"", R"({"prompt":"1+1","topic":"sums"})", R"({"solution":null,"answer":"","gold":[]})"})
    EXPECT_EQ(why(none), "the prompt has no ground truth to compare with") << none;
}

TEST(References, TruthOrColumn) {
  Prompt prompt = Row(
      "",
      R"({"one":"x","many":["y","z"],"number":3,"mixed":["a",1],"empty":[],"nested":[["a"]],"null":null})");
  std::string why;
  EXPECT_TRUE(References(prompt, "", &why).empty());
  EXPECT_NE(why.find("ground truth"), std::string::npos);
  prompt.ground_truth = "t";
  EXPECT_EQ(References(prompt, "", &why), (Texts{"t"}));
  EXPECT_EQ(References(prompt, "one", &why), (Texts{"x"}));
  EXPECT_EQ(References(prompt, "many", &why), (Texts{"y", "z"}));
  EXPECT_EQ(References(prompt, "number", &why), (Texts{"3"}));
  EXPECT_EQ(References(prompt, "mixed", &why), (Texts{"a", "1"}));
  for (const char* column : {"empty", "nested", "null", "absent"}) {
    why.clear();
    EXPECT_TRUE(References(prompt, column, &why).empty()) << column;
    EXPECT_NE(why.find(column), std::string::npos);
  }
  prompt.extra_json = "no json";
  EXPECT_TRUE(References(prompt, "one", &why).empty());
}

TEST(Compared, BehindTheThinkingUnlessTheTruthThinksToo) {
  EXPECT_EQ(Compared("<think>a</think>b", {"b"}), "b");
  EXPECT_EQ(Compared("a</think>b", {"b"}), "b") << "the template wrote <think>";
  EXPECT_EQ(Compared("<think>a", {"b"}), "");
  EXPECT_EQ(Compared("b", {"b"}), "b");
  EXPECT_EQ(Compared("<think>a</think>b", {"x", "<think>c</think>b"}), "<think>a</think>b");
}

struct Kind {
  const char* kind;
  const char* right;
  std::vector<std::string> args = {};
};
const Kind kComparing[] = {{"math", "\\boxed{4}"},
                           {"answer", "\\boxed{4}"},
                           {"exact", "4"},
                           {"exact_words", "4"},
                           {"f1", "4"},
                           {"rouge1", "4"},
                           {"rougeL", "4"},
                           {"bleu", "4", {"smooth=none"}}};

TEST(RulesWithATruth, AnyOfAListIsRight) {
  for (const Kind& c : kComparing) {
    for (const char* list : {R"(["x","4"])", R"(["4"])", "[4,5]"}) {
      const std::string extra = std::string(R"({"answer":)") + list + "}";
      EXPECT_EQ(RuleValue(c.kind, c.args, c.right, list, extra), 1) << c.kind << " " << list;
      EXPECT_EQ(RuleValue(c.kind, c.args, "\\boxed{7}", list, extra), 0) << c.kind << " " << list;
    }
  }
  EXPECT_EQ(
      RuleValue("multiple_choice", {}, "Answer: C", R"(["B","C"])", R"({"answer":["B","C"]})"), 1);
  EXPECT_EQ(
      RuleValue("multiple_choice", {}, "Answer: A", R"(["B","C"])", R"({"answer":["B","C"]})"), 0);
  EXPECT_EQ(RuleValue("multiple_choice", {"index_base=1"}, "Answer: B", "[2]", R"({"answer":[2]})"),
            1);
}

TEST(RulesWithATruth, NothingToCompareWithIsAFailure) {
  for (const Kind& c : kComparing) {
    for (const auto& [truth, extra, said] : {std::tuple{"", "", "no ground truth"},
                                             {R"({"k":"4"})", R"({"answer":{"k":"4"}})", "'k'"},
                                             {"[]", R"({"answer":[]})", "empty list"}}) {
      for (const char* text : {"", c.right}) {
        const auto scores =
            MakeRule(TestPart(c.kind))
                ->Score(TestGroup({text}, truth, extra), After(std::chrono::seconds(1)));
        EXPECT_EQ(scores[0].failure, Failure::kReported) << c.kind << " " << truth << " " << text;
        EXPECT_NE(scores[0].reason.find(said), std::string::npos)
            << c.kind << ": " << scores[0].reason;
      }
    }
  }
  const auto none = MakeRule(TestPart("multiple_choice"))
                        ->Score(TestGroup({"A"}, ""), After(std::chrono::seconds(1)));
  EXPECT_EQ(none[0].failure, Failure::kReported);
}

TEST(RulesWithATruth, ThinkingIsNoAnswer) {
  for (const Kind& c : kComparing) {
    const std::string right = c.right;
    EXPECT_EQ(RuleValue(c.kind, c.args, "<think>maybe 7</think>\n" + right, "4"), 1) << c.kind;
    EXPECT_EQ(RuleValue(c.kind, c.args, "maybe 7</think>\n" + right, "4"), 1) << c.kind;
    EXPECT_EQ(RuleValue(c.kind, c.args, "<think>" + right + "</think>\nI am done", "4"), 0)
        << c.kind;
    EXPECT_EQ(RuleValue(c.kind, c.args, "<think>" + right, "4"), 0) << c.kind;
    EXPECT_EQ(RuleValue(c.kind, c.args, right + "<think>hm", "4"), 0) << c.kind;
  }
  EXPECT_EQ(RuleValue("exact", {}, "<think>a</think>b", "<think>a</think>b"), 1)
      << "the truth thinks too";
  EXPECT_EQ(RuleValue("exact", {}, "<think>c</think>b", "<think>a</think>b"), 0);
  // cut off within the thinking that the prompt opened
  for (const char* kind : {"math", "answer", "multiple_choice"}) {
    EXPECT_EQ(RuleValue(kind, {}, "I try \\boxed{B}", "B"), 1) << kind;
    EXPECT_EQ(RuleValue(kind, {"prefilled=1"}, "I try \\boxed{B}", "B"), 0) << kind;
    EXPECT_EQ(RuleValue(kind, {"prefilled=1"}, "I try</think>\\boxed{B}", "B"), 1) << kind;
  }
  EXPECT_EQ(RuleValue("json_schema", {"schema={}"}, "<think>{</think>{}"), 1);
  EXPECT_EQ(RuleValue("json_schema", {"schema={}"}, "<think>{}"), 0);
}

}  // namespace
}  // namespace plumb::reward
