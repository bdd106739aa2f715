// reward/rules/diversity.h: low, middle and high; the answers' values are exact shares of the
// group's.
#include "reward/rules/diversity.h"

#include <cmath>

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

std::vector<double> Values(const std::string& kind, std::vector<std::string> args,
                           const std::vector<std::string>& answers) {
  return RuleValues(TestPart(kind, "", std::move(args)), TestGroup(answers));
}

TEST(Distinct, LowMiddleHigh) {
  EXPECT_EQ(Values("distinct", {"n=1"}, {"", ""}), (std::vector<double>{0, 0}));
  // One word eight times over two answers: 1 / 8 each.
  EXPECT_EQ(Values("distinct", {"n=1"}, {"a a a a", "a a a a"}),
            (std::vector<double>{0.125, 0.125}));
  // Twins share everything, the third says something else.
  EXPECT_EQ(Values("distinct", {}, {"red green blue", "Red, green: blue!", "one two three"}),
            (std::vector<double>{0.5, 0.5, 1}));
  EXPECT_EQ(Values("distinct", {}, {"red green", "blue yellow"}), (std::vector<double>{1, 1}));
  EXPECT_EQ(
      Values("distinct", {"scope=group"}, {"red green blue", "red green blue", "one two three"}),
      (std::vector<double>(3, 4.0 / 6)));
}

TEST(Entropy, LowMiddleHigh) {
  EXPECT_EQ(Values("entropy", {"n=1"}, {"a a a a", "a a a a"}), (std::vector<double>{0, 0}));
  // Two words, each half of 4: log 2 / log 4.
  EXPECT_EQ(Values("entropy", {"n=1"}, {"a b", "a b"}), (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(Values("entropy", {"n=1"}, {"a b", "c d"}), (std::vector<double>{1, 1}));
  EXPECT_EQ(Values("entropy", {"n=1"}, {"", "a"}), (std::vector<double>{0, 1}));
  EXPECT_EQ(Values("entropy", {"n=1", "scope=group"}, {"a b", "a b"}),
            (std::vector<double>{0.5, 0.5}));
}

TEST(Diversity, ShortAnswersCountAsOneGram) {
  EXPECT_EQ(Values("distinct", {"n=3"}, {"yes", "yes", "no"}), (std::vector<double>{0.5, 0.5, 1}));
  EXPECT_EQ(Values("distinct", {"n=3"}, {"yes", "yes sir"}), (std::vector<double>{1, 1}));
}

// The weighted mean over the answers is the measure of the group, computed here from the
// definition.
TEST(Diversity, SharesAddUpToTheGroup) {
  uint64_t state = 3;
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> texts(5);
    std::map<std::string, double> counts;
    double total = 0;
    std::vector<double> sizes;
    for (std::string& text : texts) {
      std::vector<std::string> words;
      for (uint64_t i = 0; i < 3 + (state >> 60); ++i) {
        words.emplace_back(
            1, static_cast<char>('a' + ((state = state * 6364136223846793005u + 99) >> 62)));
        text += words.back() + " ";
      }
      for (size_t i = 0; i + 1 < words.size(); ++i) counts[words[i] + words[i + 1]] += 1;
      sizes.push_back(static_cast<double>(words.size() - 1));
      total += sizes.back();
    }
    double entropy = 0;
    for (const auto& [gram, count] : counts) entropy -= count / total * std::log(count / total);
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    const Diversity distinct = DistinctScores(views, 2), spread = EntropyScores(views, 2);
    EXPECT_NEAR(distinct.group, static_cast<double>(counts.size()) / total, 1e-12);
    EXPECT_NEAR(spread.group, entropy / std::log(total), 1e-12);
    double a = 0, b = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      a += distinct.answers[i] * sizes[i] / total;
      b += spread.answers[i] * sizes[i] / total;
    }
    EXPECT_NEAR(a, distinct.group, 1e-12);
    EXPECT_NEAR(b, spread.group, 1e-12);
  }
}

TEST(Diversity, Refusals) {
  Refusal(TestPart("distinct", "", {"n=0"}));
  Refusal(TestPart("entropy", "", {"n=1.5"}));
  EXPECT_NE(Refusal(TestPart("entropy", "", {"scope=all"})).find("group"), std::string::npos);
}

}  // namespace
}  // namespace plumb::reward
