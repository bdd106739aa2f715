#include "run/serve/cut_text.h"

#include <gtest/gtest.h>

#include "common/text/unicode.h"

namespace plumb::run {
namespace {

// The whole, token by token; `pieces` as they came.
std::string Say(const Tokenizer& tokenizer, const std::vector<std::string>& stop,
                const std::string& text, std::vector<std::string>* pieces = nullptr,
                std::string* found = nullptr) {
  CutText cut(tokenizer, stop);
  std::string out;
  const auto more = [&](const std::string& piece) {
    if (pieces != nullptr) pieces->push_back(piece);
    out += piece;
  };
  for (const int32_t token : tokenizer.Encode(text)) {
    more(cut.Add(token));
    if (cut.stopped()) break;
  }
  more(cut.End());
  if (found != nullptr) *found = cut.found();
  return out;
}

TEST(CutText, EndsInFrontOfTheFirstStopString) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  std::string found;
  EXPECT_EQ(Say(*tokenizer, {"34", "23"}, "12345", nullptr, &found), "1");
  EXPECT_EQ(found, "23");
  EXPECT_EQ(Say(*tokenizer, {"99"}, "12349", nullptr, &found), "12349") << "held back to the end";
  EXPECT_EQ(found, "");
  EXPECT_EQ(Say(*tokenizer, {}, "12345"), "12345");
  EXPECT_EQ(Say(*tokenizer, {"112"}, "11112"), "11") << "a beginning within a beginning";
  EXPECT_EQ(Say(*tokenizer, {"12"}, "12"), "");
}

TEST(CutText, HoldsBackOnlyWhatAStopStringMayBeginWith) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  std::vector<std::string> pieces;
  EXPECT_EQ(Say(*tokenizer, {"458"}, "12345678", &pieces), "12345678");
  EXPECT_EQ(pieces, (std::vector<std::string>{"1", "2", "3", "", "", "456", "7", "8", ""}));
}

TEST(CutText, SpecialTokensAreNotShownAndHideNoStopString) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  const int32_t eos = tokenizer->Find("<eos>");
  CutText cut(*tokenizer, {"12"});
  EXPECT_EQ(cut.Add(tokenizer->Find("1")), "");
  EXPECT_EQ(cut.Add(eos), "");
  EXPECT_FALSE(cut.stopped());
  cut.Add(tokenizer->Find("2"));
  EXPECT_TRUE(cut.stopped());
  EXPECT_EQ(cut.Add(tokenizer->Find("3")), "") << "nothing comes behind it";
  EXPECT_EQ(cut.End(), "");
}

}  // namespace
}  // namespace plumb::run
