// common/text/words.h: words, sentences, lower case, n-gram numbers.
#include "common/text/words.h"

#include <set>

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

using Views = std::vector<std::string_view>;

TEST(Words, Cut) {
  EXPECT_EQ(SpacedWords(" a\tb,c \n"), (Views{"a", "b,c"}));
  EXPECT_EQ(UnicodeSpacedWords("a\xC2\xA0"
                               "b\xE3\x80\x80"
                               "c\x1C"
                               "d\xE2\x80\x8B"
                               "e"),
            (Views{"a", "b", "c",
                   "d\xE2\x80\x8B"
                   "e"}));
  EXPECT_EQ(LetterWords("Don't 'stop' -- it's 3.5, na\xC3\xAFve!"),
            (Views{"Don't", "stop", "it's", "3", "5", "na\xC3\xAFve"}));
  EXPECT_EQ(LetterWords("\xE4\xBD\xA0\xE5\xA5\xBD"
                        "ab"),
            (Views{"\xE4\xBD\xA0", "\xE5\xA5\xBD", "ab"}));
  EXPECT_EQ(LetterWords("a\xFF"
                        "b"),
            (Views{"a", "b"}))
      << "bytes that are no UTF-8 separate";
  EXPECT_TRUE(LetterWords("...").empty());
}

TEST(Words, Sentences) {
  EXPECT_EQ(Sentences("It is 3.5 km. \"Really?!\" Yes\nno"),
            (Views{"It is 3.5 km.", "\"Really?!\"", "Yes", "no"}));
  EXPECT_EQ(Sentences("\xE5\xA5\xBD\xE3\x80\x82\xE5\xA5\xBD"),
            (Views{"\xE5\xA5\xBD\xE3\x80\x82", "\xE5\xA5\xBD"}));
  EXPECT_TRUE(Sentences(" \n ").empty());
}

TEST(Words, LowerCaseIsPythons) {
  EXPECT_EQ(LowerUnicode(TextMetrics().at("capitals").get<std::string>()),
            TextMetrics().at("lower").get<std::string>());
  EXPECT_EQ(LowerUnicode("\xC4\xB0x"), "i\xCC\x87x");
  EXPECT_EQ(LowerUnicode("\xCE\xA3\xCE\x9F\xCE\xA3 \xCE\xA3"), "\xCF\x83\xCE\xBF\xCF\x82 \xCF\x83");
  EXPECT_EQ(LowerUnicode("A\xFFZ"), "a\xFFz");
}

// Equal numbers exactly for equal n-grams, over several texts, against a set of word lists.
TEST(NgramTable, NumbersAreGrams) {
  uint64_t state = 7;
  for (int n = 1; n <= 4; ++n) {
    NgramTable table(n);
    std::map<std::vector<int32_t>, int32_t> seen;
    for (int text = 0; text < 20; ++text) {
      std::vector<int32_t> ids;
      for (int i = 0; i < 30; ++i)
        ids.push_back(static_cast<int32_t>((state = state * 6364136223846793005u + 1) >> 62) - 1);
      const auto grams = table.Add(ids);
      ASSERT_EQ(grams.size(), 31u - static_cast<size_t>(n));
      for (size_t i = 0; i < grams.size(); ++i) {
        const std::vector<int32_t> key(ids.begin() + static_cast<ptrdiff_t>(i),
                                       ids.begin() + static_cast<ptrdiff_t>(i) + n);
        EXPECT_EQ(seen.emplace(key, grams[i]).first->second, grams[i]);
      }
    }
    std::set<int32_t> numbers;
    for (const auto& [key, number] : seen) numbers.insert(number);
    EXPECT_EQ(numbers.size(), seen.size());
    EXPECT_EQ(table.size(), seen.size());
    EXPECT_TRUE(NgramTable(n).Add(std::vector<int32_t>(static_cast<size_t>(n) - 1)).empty());
  }
}

}  // namespace
}  // namespace plumb::reward
