// reward/rules/rouge.h against rouge-score's own numbers (tests/golden/text_metrics.py), and its
// formula by hand.
#include "reward/rules/rouge.h"

#include "common/text/words.h"
#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

TEST(Rouge, EqualsRougeScore) {
  size_t compared = 0;
  for (const auto& c : TextMetrics().at("cases")) {
    const std::string answer = c.at("answer"), truth = c.at("truth");
    for (int stem = 0; stem < 2; ++stem) {
      const auto a = RougeTokens(answer, stem == 1), t = RougeTokens(truth, stem == 1);
      const RougeValue values[] = {RougeN(t, a, 1), RougeN(t, a, 2), RougeL(t, a)};
      for (size_t i = 0; i < 3; ++i) {
        const auto& want = c.at("rouge").at(static_cast<size_t>(stem) * 3 + i);
        EXPECT_NEAR(values[i].precision, want.at(0).get<double>(), 1e-9)
            << i << stem << ": " << answer << " | " << truth;
        EXPECT_NEAR(values[i].recall, want.at(1).get<double>(), 1e-9)
            << i << stem << ": " << answer << " | " << truth;
        EXPECT_NEAR(values[i].f, want.at(2).get<double>(), 1e-9)
            << i << stem << ": " << answer << " | " << truth;
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 1200u);
}

TEST(Rouge, SeveralReferencesTakeTheBest) {
  for (const auto& c : TextMetrics().at("several")) {
    const nlohmann::json extra = {{"all", c.at("references")}};
    EXPECT_NEAR(
        RuleValue("rougeL", {"stemmer=1", "reference=all"}, c.at("answer"), "", extra.dump()),
        c.at("rougeL").get<double>(), 1e-9)
        << c.at("answer");
  }
}

TEST(Rouge, LowMiddleHigh) {
  for (const std::string kind : {"rouge1", "rouge2", "rougeL"}) {
    EXPECT_EQ(RuleValue(kind, {}, "dogs bark", "the cat sat"), 0) << kind;
    EXPECT_EQ(RuleValue(kind, {}, "The cat sat!", "the cat sat"), 1) << kind;
    EXPECT_EQ(RuleValue(kind, {}, "", "the cat sat"), 0) << kind;
  }
  // P = 2/2, R = 2/4: 2/3. One pair of words in common of 1 and 3: 2 * 1 / (1 + 3).
  EXPECT_NEAR(RuleValue("rouge1", {}, "the cat", "the cat sat down"), 2.0 / 3, 1e-12);
  EXPECT_NEAR(RuleValue("rouge2", {}, "the cat", "the cat sat down"), 0.5, 1e-12);
  // Order counts for rougeL alone: of "sat cat" one word stands in order.
  EXPECT_NEAR(RuleValue("rouge1", {}, "sat cat", "cat sat"), 1, 1e-12);
  EXPECT_NEAR(RuleValue("rougeL", {}, "sat cat", "cat sat"), 0.5, 1e-12);
  EXPECT_NEAR(RuleValue("rouge1", {"measure=precision"}, "the cat", "the cat sat down"), 1, 1e-12);
  EXPECT_NEAR(RuleValue("rouge1", {"measure=recall"}, "the cat", "the cat sat down"), 0.5, 1e-12);
  EXPECT_EQ(RuleValue("rouge1", {}, "running", "runs"), 0);
  EXPECT_EQ(RuleValue("rouge1", {"stemmer=1"}, "running", "runs"), 1);
}

TEST(Rouge, NothingToCompareWithIsAFailure) {
  for (const auto& args : {std::vector<std::string>{}, {"reference=summary"}}) {
    const auto scores =
        MakeRule(TestPart("rougeL", "", args))
            ->Score(TestGroup({"a"}, "", R"({"other":"b"})"), After(std::chrono::seconds(1)));
    EXPECT_EQ(scores[0].failure, Failure::kReported);
    EXPECT_FALSE(scores[0].reason.empty());
  }
  EXPECT_NE(Refusal(TestPart("rougeL", "", {"stem=1"})).find("stemmer=..."), std::string::npos);
  EXPECT_NE(Refusal(TestPart("rouge1", "", {"measure=f2"})).find("precision"), std::string::npos);
}

// The bit-parallel length against the plain table, over lengths on both sides of a block of 64.
TEST(CommonSubsequence, EqualsTheTable) {
  uint64_t state = 12345;
  const auto next = [&](uint64_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % bound;
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> a(next(200)), b(next(200));
    const uint64_t words = 1 + next(8);
    for (int32_t& x : a) x = static_cast<int32_t>(next(words));
    for (int32_t& x : b) x = static_cast<int32_t>(next(words));
    std::vector<size_t> row(b.size() + 1, 0);
    for (const int32_t x : a) {
      size_t corner = 0;
      for (size_t j = 0; j < b.size(); ++j) {
        const size_t above = row[j + 1];
        row[j + 1] = x == b[j] ? corner + 1 : std::max(above, row[j]);
        corner = above;
      }
    }
    EXPECT_EQ(CommonSubsequence(a, b), row.back()) << a.size() << " x " << b.size();
  }
}

}  // namespace
}  // namespace plumb::reward
