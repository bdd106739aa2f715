// Whole characters out of tokens that end anywhere: every way of cutting a text.
#include "common/text/tokenizer/text_stream.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/text/unicode.h"

namespace plumb {
namespace {

// A tokenizer of whatever pieces; the last of them is special.
class Pieces : public Tokenizer {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::vector<int32_t> Encode(std::string_view, bool) const override { return {}; }
  std::string_view TokenBytes(int32_t id) const override {
    return pieces_[static_cast<size_t>(id)];
  }
  int32_t size() const override { return static_cast<int32_t>(pieces_.size()); }
  int32_t Find(std::string_view) const override { return -1; }
  bool IsSpecial(int32_t id) const override { return id + 1 == size(); }
  const std::string& json() const override { return pieces_.front(); }

 private:
  std::vector<std::string> pieces_;
};

std::vector<std::string> Streamed(const Tokenizer& tokenizer, int32_t tokens) {
  std::vector<std::string> out;
  TextStream stream(tokenizer);
  for (int32_t id = 0; id < tokens; ++id) out.push_back(stream.Add(id));
  out.push_back(stream.End());
  return out;
}

// All 2^(bytes - 1) ways to cut `text` into tokens.
void TryEveryCut(const std::string& text) {
  std::string whole = text;
  RepairUtf8(whole);
  for (uint32_t cuts = 0; cuts < (uint32_t{1} << (text.size() - 1)); ++cuts) {
    std::vector<std::string> pieces(1);
    for (size_t i = 0; i < text.size(); ++i) {
      pieces.back() += text[i];
      if (cuts >> i & 1) pieces.emplace_back();
    }
    const auto count = static_cast<int32_t>(pieces.size());
    pieces.emplace_back("<end>");
    const Pieces tokenizer(pieces);
    std::string shown;
    for (const std::string& part : Streamed(tokenizer, count)) {
      ASSERT_TRUE(IsUtf8(part)) << "half a character, cuts " << cuts;
      shown += part;
    }
    ASSERT_EQ(shown, whole) << "cuts " << cuts;
  }
}

TEST(TextStream, EveryCutOfATextOfAllLengthsOfCharacters) {
  TryEveryCut("a\u00e9\u20ac\U0001F600z");  // 1, 2, 3, 4 and 1 bytes
  TryEveryCut("\U0001F468\u200D\U0001F469 \u65e5");
}

TEST(TextStream, EveryCutOfBytesThatAreNoCharacters) {
  TryEveryCut("\xe2\x82 x\xf0\x9f\x98");            // cut short, within and at the end
  TryEveryCut("\x80\x80\x80\x80\xc3\xc3\xa9");      // nothing begins them; a lead behind a lead
  TryEveryCut("\xed\xa0\x80\xc0\xaf\xf5\x80\xff");  // a surrogate, overlong, beyond the last
}

TEST(TextStream, GivesACharacterAsSoonAsItIsWholeAndNoSooner) {
  const Pieces tokenizer({"\xe6\x97", "\xa5 and \xe6", "\x9c\xac", "<end>"});
  EXPECT_EQ(Streamed(tokenizer, 3), (std::vector<std::string>{"", "\u65e5 and ", "\u672c", ""}));
}

TEST(TextStream, SpecialTokensAreShownOnlyWhereAsked) {
  const Pieces tokenizer({"a\xc3", "<end>"});
  const auto all = [](TextStream stream) {
    std::string text = stream.Add(0);
    text += stream.Add(1);
    return text + stream.End();
  };
  EXPECT_EQ(all(TextStream(tokenizer)), "a\uFFFD");
  EXPECT_EQ(all(TextStream(tokenizer, /*skip_special=*/false)), "a\uFFFD<end>");
}

TEST(TextStream, NothingThatAModelWritesCommandsATerminal) {
  EXPECT_EQ(ForTerminal("a\tb\n\u65e5 \U0001F600"), "a\tb\n\u65e5 \U0001F600");
  EXPECT_EQ(ForTerminal("\x1b]0;title\x07\x1b[2J"), "\uFFFD]0;title\uFFFD\uFFFD[2J");
  EXPECT_EQ(ForTerminal("\r\x7f\u009b\u00a0"), "\uFFFD\uFFFD\uFFFD\u00a0") << "C1 controls, too";
  EXPECT_EQ(ForTerminal(std::string("\0", 1) + "\xff"), "\uFFFD\uFFFD");
}

}  // namespace
}  // namespace plumb
