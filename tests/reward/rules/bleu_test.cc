// reward/rules/bleu.h against sacrebleu's own numbers (tests/golden/text_metrics.py), and its
// formula by hand.
#include "reward/rules/bleu.h"

#include <cmath>

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

constexpr Smoothing kMethods[] = {Smoothing::kExp, Smoothing::kFloor, Smoothing::kAddK,
                                  Smoothing::kNone};

TEST(Bleu, TokensEqualSacrebleus) {
  for (const auto& c : TextMetrics().at("cases")) {
    EXPECT_EQ(BleuTokens(c.at("answer").get<std::string>()),
              c.at("tokens").get<std::vector<std::string>>())
        << c.at("answer");
  }
}

TEST(Bleu, SentencesEqualSacrebleu) {
  for (const auto& c : TextMetrics().at("cases")) {
    const BleuCounts counts =
        CountBleu(c.at("answer").get<std::string>(), {c.at("truth").get<std::string>()});
    for (size_t i = 0; i < 4; ++i) {
      const double got = BleuScore(counts, {.smoothing = kMethods[i], .effective_order = true});
      EXPECT_NEAR(got, c.at("bleu").at(i).get<double>() / 100, 1e-9)
          << i << ": " << c.at("answer") << " | " << c.at("truth");
    }
    EXPECT_NEAR(BleuScore(counts, {}), c.at("bleu_whole").get<double>() / 100, 1e-9)
        << c.at("answer") << " | " << c.at("truth");
  }
}

TEST(Bleu, CorporaEqualSacrebleu) {
  const auto& cases = TextMetrics().at("cases");
  const std::map<std::string, Smoothing> names = {
      {"exp", kMethods[0]}, {"floor", kMethods[1]}, {"add-k", kMethods[2]}, {"none", kMethods[3]}};
  for (const auto& c : TextMetrics().at("corpora")) {
    BleuCounts sum;
    for (size_t i = c.at("begin"); i < c.at("end").get<size_t>(); ++i) {
      sum += CountBleu(cases.at(i).at("answer").get<std::string>(),
                       {cases.at(i).at("truth").get<std::string>()});
    }
    EXPECT_EQ(sum.answer_length, c.at("answer_length").get<int64_t>());
    EXPECT_EQ(sum.reference_length, c.at("reference_length").get<int64_t>());
    const double got = BleuScore(sum, {.smoothing = names.at(c.at("smooth"))});
    EXPECT_NEAR(got, c.at("score").get<double>() / 100, 1e-9) << c.at("smooth");
  }
}

TEST(Bleu, SeveralReferencesEqualSacrebleu) {
  for (const auto& c : TextMetrics().at("several")) {
    const nlohmann::json extra = {{"all", c.at("references")}};
    EXPECT_NEAR(RuleValue("bleu", {"reference=all"}, c.at("answer"), "", extra.dump()),
                c.at("bleu").get<double>() / 100, 1e-9)
        << c.at("answer");
  }
}

TEST(Bleu, LowMiddleHigh) {
  EXPECT_EQ(RuleValue("bleu", {}, "dogs bark", "the cat sat"), 0);
  EXPECT_EQ(RuleValue("bleu", {}, "", "the cat sat"), 0);
  EXPECT_NEAR(RuleValue("bleu", {}, "the cat sat on the mat", "the cat sat on the mat"), 1, 1e-12);
  // 2 of 2 words and 1 of 1 pairs, half as long as the reference: exp(1 - 4/2).
  EXPECT_NEAR(RuleValue("bleu", {}, "the cat", "the cat sat down"), std::exp(-1.0), 1e-12);
  EXPECT_EQ(RuleValue("bleu", {"effective=0"}, "the cat", "the cat sat down"), 0);
  // p1 = 3/4, p2 = 1/3, then nothing in common: 1 / (2 * 2) and 1 / (4 * 1).
  EXPECT_NEAR(RuleValue("bleu", {}, "a b x c", "a b y c"), std::pow(0.75 / 3 * 0.25 * 0.25, 0.25),
              1e-12);
  EXPECT_EQ(RuleValue("bleu", {"smooth=none"}, "a b x c", "a b y c"), 0);
}

TEST(Bleu, RefusesOptionsThatDoNothing) {
  EXPECT_NE(Refusal(TestPart("bleu", "", {"smooth_value=0.5"})).find("smooth_value"),
            std::string::npos);
  EXPECT_NE(
      Refusal(TestPart("bleu", "", {"smooth=floor", "smooth_value=nan"})).find("smooth_value"),
      std::string::npos);
}

}  // namespace
}  // namespace plumb::reward
