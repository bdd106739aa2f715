// The character classes of Unicode 16, whatever utf8proc is at hand; normal form C; UTF-8 in and
// out.
#include "common/text/unicode.h"

#include <gtest/gtest.h>

#include <map>

#include "common/text/character_table.h"

namespace plumb {
namespace {

TEST(Unicode, ClassesHaveTheReferencesMembers) {
  std::map<CharacterClass, int> count;
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code < 0xD800 || code >= 0xE000) ++count[ClassOf(code)];
  }
  // Members of \p{L}, \p{N} and \s as the `tokenizers` package 0.23 counts them (one Split with
  // each over all characters).
  EXPECT_EQ(count[CharacterClass::kLetter], 141028);
  EXPECT_EQ(count[CharacterClass::kNumber], 1911);
  EXPECT_EQ(count[CharacterClass::kSpace], 25);
  EXPECT_EQ(ClassOf(0x320FD), CharacterClass::kLetter) << "CJK extension H, Unicode 15";
  EXPECT_EQ(ClassOf(0x1E4F0), CharacterClass::kNumber) << "Nag Mundari zero, Unicode 15";
  EXPECT_EQ(ClassOf(kNotACharacter), CharacterClass::kOther);
}

TEST(Unicode, NewerLettersAndNumbersBelongToWords) {
  EXPECT_EQ(ClassOf(0x16D40), CharacterClass::kLetter) << "Kirat Rai, Unicode 16";
  EXPECT_EQ(ClassOf(0x16D70), CharacterClass::kNumber) << "Kirat Rai zero, Unicode 16";
  for (const char32_t code :
       {U'a', U'_', U'7', U'\u0301', U'\u24B6', U'\u200D', U'\U00016D40', U'\U00016D70'}) {
    EXPECT_TRUE(IsWordCharacter(code)) << static_cast<uint32_t>(code);
  }
  for (const char32_t code : {U'-', U' ', U'\u00BD', U'\u20AC', U'\U00016D6D', kNotACharacter}) {
    EXPECT_FALSE(IsWordCharacter(code)) << static_cast<uint32_t>(code);
  }
}

// Sorting marks pair by pair would take hours.
// Members as the patterns of the `tokenizers` package 0.23 count them: [\p{Lu}\p{Lt}], \p{Ll},
// [\p{Lm}\p{Lo}], \p{M}, \p{N}, \s, \p{P}, \p{S}.
TEST(Unicode, TheTableHasTheReferencesMembers) {
  std::map<int, int> count;
  for (char32_t code = 0; code < kCodePoints; ++code) {
    if (code < 0xD800 || code >= 0xE000) ++count[BitsOf(CharacterTable(), code)];
  }
  EXPECT_EQ(count[kUpperLetter], 1889);
  EXPECT_EQ(count[kLowerLetter], 2258);
  EXPECT_EQ(count[kOtherLetter], 136881);
  EXPECT_EQ(count[kMarkCharacter], 2501);
  EXPECT_EQ(count[kNumberCharacter], 1911);
  EXPECT_EQ(count[kSpaceCharacter], 25);
  EXPECT_EQ(count[kPunctuation], 855);
  EXPECT_EQ(count[kSymbol], 8514);
  EXPECT_EQ(BitsOf(CharacterTable(), kNotACharacter), 0);
}

TEST(Unicode, ALongRunOfMarksOutOfOrderIsComposedSoon) {
  std::string text = "a";
  for (int i = 0; i < 1000000; ++i) text += "\u0F73\u0301\u0323";
  const std::string composed = ComposeNfc(text);
  EXPECT_TRUE(composed.starts_with("\u00E1") || composed.starts_with("\u1EA1"))
      << composed.substr(0, 8);
  EXPECT_EQ(ComposeNfc(composed), composed);
}

TEST(Unicode, BytesOfNoCharacterBecomeTheReplacement) {
  std::string text = "a\xFF\xE2\x82z\u20AC";
  EXPECT_TRUE(RepairUtf8(text));
  EXPECT_EQ(text, "a\uFFFD\uFFFDz\u20AC") << "one for each longest beginning of a character";
  EXPECT_FALSE(RepairUtf8(text));
  // As Python's errors="replace" and Rust's from_utf8_lossy have it.
  for (const auto& [broken, signs] :
       std::initializer_list<std::pair<const char*, size_t>>{{"\xF0\x9F\x98", 1},
                                                             {"\xF0\x9F", 1},
                                                             {"\xF0\x8F\x98\x80", 4},
                                                             {"\xED\xA0\x80", 3},
                                                             {"\xE0\x80", 2},
                                                             {"\xC3\xC3", 2},
                                                             {"\xF4\x90\x80", 3},
                                                             {"\x80\xFE", 2}}) {
    std::string mended = broken;
    RepairUtf8(mended);
    EXPECT_EQ(mended.size(), 3 * signs) << mended;
  }
}

TEST(Unicode, FormsAreThoseOfWholeTextsWhereverTheyChange) {
  EXPECT_EQ(Normalize(NormalForm::kNfkc, "\uFB01x \u00BD\u212B"), "fix 1\u20442\u00C5");
  EXPECT_EQ(Normalize(NormalForm::kNfd, "caf\u00E9 \uAC01"), "cafe\u0301 \u1100\u1161\u11A8");
  EXPECT_EQ(Normalize(NormalForm::kNfkd, "\uFDFA").size(), 33u);
  EXPECT_EQ(ComposeNfc("xe\u0301ye\u0301"), "x\u00E9y\u00E9");
  EXPECT_EQ(ComposeNfc("\uAC00\u11A8"), "\uAC01");
  EXPECT_EQ(ComposeNfc("\u0301\u0301a"), "\u0301\u0301a");
  // The reference's tables are those of Unicode 9: what has been added since stays as it is.
  EXPECT_EQ(Normalize(NormalForm::kNfkc, "\U0001FBF6\u32FF\U0001E054"),
            "\U0001FBF6\u32FF\U0001E054");
  EXPECT_EQ(Normalize(NormalForm::kNfd, "\u0898\u0323\U00011938"), "\u0898\u0323\U00011938");
  EXPECT_EQ(ComposeNfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

TEST(Unicode, EveryCharacterComesBack) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    AppendUtf8(code, text);
    const Character c = DecodeUtf8(text, 0);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.bytes, text.size());
  }
}

TEST(Unicode, BrokenBytesStandAlone) {
  for (const char* text : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
                           "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xC3",
                           "\xE2\x82", "\xF0\x9F\x98", "\xC3(", "\xFF"}) {
    EXPECT_EQ(DecodeUtf8(text, 0).code, kNotACharacter) << text;
    EXPECT_EQ(DecodeUtf8(text, 0).bytes, 1) << text;
  }
}

}  // namespace
}  // namespace plumb
