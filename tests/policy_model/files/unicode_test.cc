// The character classes of Unicode 16, whatever PCRE2 is at hand; UTF-8 in and out.
#include "policy_model/files/unicode.h"

#include <gtest/gtest.h>

#include <map>

namespace plumb::policy_model {
namespace {

TEST(Unicode, ClassesHaveTheReferencesMembers) {
  std::map<CharacterClass, int> count;
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code < 0xD800 || code >= 0xE000) ++count[ClassOf(code)];
  }
  // Members of \p{L}, \p{N} and \s as the `tokenizers` package 0.23 counts them (one Split with each over all characters).
  EXPECT_EQ(count[CharacterClass::kLetter], 141028);
  EXPECT_EQ(count[CharacterClass::kNumber], 1911);
  EXPECT_EQ(count[CharacterClass::kSpace], 25);
  EXPECT_EQ(ClassOf(0x320FD), CharacterClass::kLetter) << "CJK extension H, Unicode 15";
  EXPECT_EQ(ClassOf(0x1E4F0), CharacterClass::kNumber) << "Nag Mundari zero, Unicode 15";
  EXPECT_EQ(ClassOf(kNotACharacter), CharacterClass::kOther);
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
  for (const char* text : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3(", "\xFF"}) {
    EXPECT_EQ(DecodeUtf8(text, 0).code, kNotACharacter) << text;
    EXPECT_EQ(DecodeUtf8(text, 0).bytes, 1) << text;
  }
}

}  // namespace
}  // namespace plumb::policy_model
