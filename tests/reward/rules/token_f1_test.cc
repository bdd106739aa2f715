// reward/rules/token_f1.h against the SQuAD formula in Python (tests/golden/text_metrics.py), and
// by hand.
#include "reward/rules/token_f1.h"

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

TEST(TokenF1, EqualsPython) {
  for (const auto& c : TextMetrics().at("cases")) {
    const std::string answer = c.at("answer"), truth = c.at("truth");
    EXPECT_EQ(SquadNormalized(answer), c.at("squad").get<std::string>()) << answer;
    EXPECT_NEAR(TokenF1(answer, truth), c.at("f1").get<double>(), 1e-9) << answer << " | " << truth;
  }
}

TEST(TokenF1, LowMiddleHigh) {
  EXPECT_EQ(RuleValue("f1", {}, "a dog", "the cat"), 0);
  EXPECT_NEAR(RuleValue("f1", {}, "black cat", "The cat."), 2.0 / 3, 1e-12);
  EXPECT_EQ(RuleValue("f1", {}, "a CAT!", "the cat"), 1);
  EXPECT_EQ(RuleValue("f1", {"reference=all"}, "cat", "", R"({"all":["dog","big cat","cat"]})"), 1);
  EXPECT_EQ(RuleValue("exact_words", {}, "The cat.", "cat"), 1);
  EXPECT_EQ(RuleValue("exact_words", {}, "black cat", "cat"), 0);
}

}  // namespace
}  // namespace plumb::reward
