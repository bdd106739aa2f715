// The built-in rules (reward/rules/rules.h): low, middle and high of each formula, and what they
// refuse.
#include "reward/rules/rules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reward/part/file_digest.h"

namespace plumb::reward {
namespace {

TrajectoryGroup Group(const std::string& completion, const std::string& truth = "",
                      int tokens = 3) {
  TrajectoryGroup group;
  group.lease.prompt.text = "q";
  group.lease.prompt.ground_truth = truth;
  Trajectory t;
  t.completion = completion;
  t.tokens.assign(static_cast<size_t>(2 + tokens), 1);
  t.segments = {{Origin::kPrompt, 0, 2}, {Origin::kPolicy, 2, 2 + tokens}};
  group.trajectories.push_back(t);
  return group;
}

configs::RewardPartConfig Part(const std::string& kind, std::vector<std::string> args = {}) {
  configs::RewardPartConfig part;
  part.name.assign(1, 'p');  // not = "p": GCC 12 warns falsely (-Wrestrict)
  part.kind = kind;
  part.args = std::move(args);
  return part;
}

double Value(const configs::RewardPartConfig& part, const TrajectoryGroup& group) {
  const auto scores = MakeRule(part)->Score(group, After(std::chrono::seconds(1)));
  EXPECT_EQ(scores.size(), 1u);
  EXPECT_TRUE(scores[0].scored()) << scores[0].reason;
  return scores[0].value;
}

TEST(StripEndTokens, OnlyAtTheEnd) {
  EXPECT_EQ(StripEndTokens("a<|im_end|>"), "a");
  EXPECT_EQ(StripEndTokens("a </s>\n<|endoftext|><|endoftext|> "), "a");
  EXPECT_EQ(StripEndTokens("<eos>a<eos>b"), "<eos>a<eos>b");
  EXPECT_EQ(StripEndTokens("<eos>"), "");
  EXPECT_EQ(StripEndTokens(""), "");
}

TEST(AnswerRule, RightWrongAndMissing) {
  EXPECT_EQ(Value(Part("answer"), Group("<think>x</think><answer>4</answer><eos>", "4")), 1);
  EXPECT_EQ(Value(Part("answer"), Group("<think>4</think><answer>5</answer>", "4")), 0);
  EXPECT_EQ(Value(Part("answer"), Group("it is 4", "4")), 0);
  EXPECT_EQ(Value(Part("answer", {"fallback=last_number"}), Group("it is 4", "4")), 1);
  const auto none = MakeRule(Part("answer"))->Score(Group("4", ""), After(std::chrono::seconds(1)));
  EXPECT_EQ(none[0].failure, Failure::kReported) << "a row without a truth must not become a 0";
}

// Each kind that says so fails a row without a truth, and no other does.
TEST(ComparesWithTruth, IsWhatTheRulesDo) {
  for (const std::string& kind : RuleKinds()) {
    configs::RewardPartConfig part = Part(kind);
    if (kind == "regex") part.args = {"pattern=x"};
    if (kind == "contains" || kind == "absent" || kind == "safety") part.args = {"words=x"};
    if (kind == "json_schema") part.args = {"schema={}"};
    std::vector<PartScore> scores;
    try {
      scores = MakeRule(part)->Score(Group("4", ""), After(std::chrono::seconds(1)));
    } catch (const Error&) {
      EXPECT_FALSE(ComparesWithTruth(part)) << kind << " wants options that are not given here";
      continue;
    }
    const bool lacks =
        !scores.at(0).scored() && scores[0].reason.find("no ground truth") != std::string::npos;
    EXPECT_EQ(lacks, ComparesWithTruth(part)) << kind << ": " << scores[0].reason;
  }
  EXPECT_FALSE(ComparesWithTruth(Part("bleu", {"reference=summary"})));
}

TEST(MathRule, RightWrongAndMissing) {
  EXPECT_EQ(Value(Part("math"), Group("so \\boxed{\\frac{2}{4}}<eos>", "0.5")), 1);
  EXPECT_EQ(Value(Part("math"), Group("so \\boxed{\\frac{2}{3}}", "0.5")), 0);
  EXPECT_EQ(Value(Part("math"), Group("it is 0.5", "0.5")), 0) << "no marker";
  EXPECT_EQ(Value(Part("math", {"fallback=last_number"}), Group("it is 0.5", "0.5")), 1);
  EXPECT_EQ(
      Value(Part("math", {"fallback=last_math"}), Group("it is $(1, 2]$ then", "1 < x \\le 2")), 1);
  EXPECT_EQ(Value(Part("math"), Group("\\boxed{0.333}", "1/3")), 0);
  EXPECT_EQ(Value(Part("math", {"digits=3"}), Group("\\boxed{0.333}", "1/3")), 1);
  const auto none =
      MakeRule(Part("math"))->Score(Group("\\boxed{4}", ""), After(std::chrono::seconds(1)));
  EXPECT_EQ(none[0].failure, Failure::kReported);
  EXPECT_THROW(MakeRule(Part("math", {"digits=16"})), Error);
  EXPECT_THROW(MakeRule(Part("math", {"digits=x"})), Error);
  EXPECT_THROW(MakeRule(Part("math", {"fallback=maybe"})), Error);
}

TEST(MultipleChoiceRule, RightWrongAndNoTruth) {
  EXPECT_EQ(Value(Part("multiple_choice"), Group("The answer is (B).<eos>", "B")), 1);
  EXPECT_EQ(Value(Part("multiple_choice"), Group("The answer is (C).", "B")), 0);
  EXPECT_EQ(Value(Part("multiple_choice"), Group("no idea", "B")), 0);
  EXPECT_EQ(Value(Part("multiple_choice", {"last=J"}), Group("H", "(H)")), 1);
  auto group = Group("Paris", "1");
  group.lease.prompt.extra_json = R"({"choices":["London","Paris"]})";
  EXPECT_EQ(Value(Part("multiple_choice", {"index_base=0"}), group), 1);
  EXPECT_EQ(Value(Part("multiple_choice", {"index_base=1"}), group), 0);
  const auto none = MakeRule(Part("multiple_choice"))->Score(group, After(std::chrono::seconds(1)));
  EXPECT_EQ(none[0].failure, Failure::kReported)
      << "a number may count from 0 or from 1: not guessed";
  group.lease.prompt.ground_truth = "Paris";
  EXPECT_EQ(Value(Part("multiple_choice"), group), 1) << "the truth as the option's text";
  EXPECT_THROW(MakeRule(Part("multiple_choice", {"last=5"})), Error);
  EXPECT_THROW(MakeRule(Part("multiple_choice", {"index_base=2"})), Error);
}

TEST(FormatRule, Table) {
  struct Case {
    const char* text;
    double want;
  };
  for (const Case& c : {
           Case{"<think>a</think><answer>b</answer>", 1},
           Case{"\n<think>a\nb</think>\n\n<answer>\nb</answer>\n<|im_end|>", 1},
           Case{"<think>a</think> so <answer>b</answer>", 0},
           Case{"x<think>a</think><answer>b</answer>", 0},
           Case{"<think>a</think><answer>b</answer>x", 0},
           Case{"<think></think><answer>b</answer>", 0},
           Case{"<think>a</think><answer> </answer>", 0},
           Case{"<think>a<think></think><answer>b</answer>", 0},
           Case{"<answer>b</answer><think>a</think>", 0},
           Case{"<think>a</think><answer>b", 0},
           Case{"", 0},
       }) {
    EXPECT_EQ(Value(Part("format"), Group(c.text)), c.want) << c.text;
  }
  EXPECT_EQ(Value(Part("format", {"prefilled=1"}), Group("a</think><answer>b</answer>")), 1);
  EXPECT_EQ(Value(Part("format"), Group("a</think><answer>b</answer>")), 0);
}

TEST(SoftFormatRule, FormulaAndSpread) {
  EXPECT_DOUBLE_EQ(SoftFormatScore("", false, false), 0);
  EXPECT_DOUBLE_EQ(SoftFormatScore("a b", false, true), 0.2);        // stop, distinct
  EXPECT_DOUBLE_EQ(SoftFormatScore("a a a 1", false, false), 0.15);  // 2 of 4 words, a number
  EXPECT_NEAR(SoftFormatScore("<think> a </think> 4", false, true), 0.5, 1e-12);
  EXPECT_NEAR(SoftFormatScore("x <think> a </think> <answer> 4 </answer>", false, true), 0.9,
              1e-12);
  EXPECT_DOUBLE_EQ(SoftFormatScore("<think> a </think> <answer> 4 </answer>", false, true), 1);
  // Two answers of an untrained model do not tie.
  EXPECT_NE(SoftFormatScore("the the the cat", false, false),
            SoftFormatScore("the cat sat", false, false));
}

TEST(LengthRule, LowMiddleHigh) {
  auto part = Part("length");
  part.target_tokens = 10;
  part.max_tokens = 20;
  EXPECT_EQ(Value(part, Group("x", "", 10)), 1);
  EXPECT_EQ(Value(part, Group("x", "", 15)), 0.5);
  EXPECT_EQ(Value(part, Group("x", "", 20)), 0);
  EXPECT_EQ(Value(part, Group("x", "", 900)), 0);
  part.max_tokens = 10;
  EXPECT_THROW(MakeRule(part), Error);
}

TEST(TextRules, LowMiddleHigh) {
  EXPECT_EQ(Value(Part("exact"), Group(" yes <eos>", "yes")), 1);
  EXPECT_EQ(Value(Part("exact"), Group("Yes", "yes")), 0);
  EXPECT_EQ(Value(Part("exact", {"ignore_case=1"}), Group("Yes", "yes")), 1);
  EXPECT_EQ(Value(Part("regex", {"pattern=^\\d{3}$"}), Group("123")), 1);
  EXPECT_EQ(Value(Part("regex", {"pattern=^\\d{3}$"}), Group("1234")), 0);
  EXPECT_EQ(Value(Part("regex", {"pattern=a"}), Group("\xff\xfe a")), 1)
      << "bytes that are no UTF-8";
  EXPECT_EQ(Value(Part("repetition"), Group("a b c d")), 1);
  EXPECT_EQ(Value(Part("repetition", {"n=1"}), Group("a b a b")), 0.5);
  EXPECT_EQ(Value(Part("repetition", {"n=2"}), Group("a a a a a")), 0.25);
  EXPECT_EQ(Value(Part("repetition"), Group("a b")), 1);
  EXPECT_EQ(Value(Part("contains", {"words=one, two"}), Group("one")), 0.5);
  EXPECT_EQ(Value(Part("contains", {"words=one,two"}), Group("two one")), 1);
  EXPECT_EQ(Value(Part("contains", {"words=one,two"}), Group("three")), 0);
  EXPECT_EQ(Value(Part("absent", {"words=kill"}), Group("a skill")), 1);
  EXPECT_EQ(Value(Part("absent", {"words=kill"}), Group("Kill it")), 0);
}

// docs/rewards.md, text rules: low, middle and high as they stand in the table.
TEST(TextRules, TheTableOfTheDocumentation) {
  const std::string truth = "the cat sat down";
  const auto value = [&](const char* kind, const char* text) {
    return Value(Part(kind), Group(text, truth));
  };
  for (const char* kind : {"rouge1", "rouge2", "rougeL", "bleu", "f1"})
    EXPECT_EQ(value(kind, "dogs bark"), 0) << kind;
  for (const char* kind : {"rouge1", "rouge2", "rougeL"})
    EXPECT_EQ(value(kind, "The cat sat down!"), 1) << kind;
  EXPECT_NEAR(value("rouge1", "the cat"), 2.0 / 3, 1e-12);
  EXPECT_NEAR(value("rouge2", "the cat"), 0.5, 1e-12);
  EXPECT_NEAR(value("rougeL", "cat the"), 1.0 / 3, 1e-12);
  EXPECT_NEAR(value("bleu", "the cat"), std::exp(-1.0), 1e-12);
  EXPECT_NEAR(value("bleu", "the cat sat down"), 1, 1e-12);
  EXPECT_NEAR(value("f1", "a black cat"), 0.4, 1e-12);
  EXPECT_EQ(value("f1", "Cat sat down."), 1);
  EXPECT_EQ(value("exact_words", "cat sat"), 0);
  EXPECT_EQ(value("exact_words", "Cat sat down."), 1);
}

TEST(RegexRule, GivesUpInsteadOfHanging) {
  const auto rule = MakeRule(Part("regex", {"pattern=^(a+)+$"}));
  const auto scores =
      rule->Score(Group(std::string(60, 'a') + "b"), After(std::chrono::seconds(1)));
  EXPECT_TRUE(scores[0].scored() ? scores[0].value == 0 : scores[0].failure == Failure::kReported);
}

TEST(MakeRule, RefusesWhatItDoesNotKnow) {
  for (const auto& part :
       {Part("answer", {"fallbak=none"}), Part("answer", {"fallback=maybe"}), Part("regex"),
        Part("regex", {"pattern=("}), Part("repetition", {"n=0"}), Part("contains"),
        Part("format", {"prefilled=yes"}), Part("length"), Part("exact", {"x"})}) {
    try {
      MakeRule(part);
      ADD_FAILURE() << part.kind;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("'p'"), std::string::npos) << error.what();
    }
  }
}

TEST(MakeRule, DigestFollowsTheOptions) {
  const auto digest = [](const configs::RewardPartConfig& part) {
    return MakeRule(part)->digest();
  };
  EXPECT_EQ(digest(Part("answer")), digest(Part("answer")));
  EXPECT_NE(digest(Part("answer")), digest(Part("answer", {"fallback=last_number"})));
  EXPECT_EQ(digest(Part("answer")).rfind("rule:answer/3:", 0), 0u);
}

TEST(FileDigest, KnownValues) {
  EXPECT_EQ(TextSha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(TextSha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(TextSha256(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_THROW(FileSha256("/nonexistent"), Error);
}

}  // namespace
}  // namespace plumb::reward
