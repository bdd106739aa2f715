// ASCII text: ends, case, digits.
#include "common/base/text.h"

#include <gtest/gtest.h>

#include <array>
#include <cctype>

namespace plumb {
namespace {

TEST(Text, ClassesAreThoseOfTheCLocaleForEveryByte) {
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    const bool ascii = i < 128;
    EXPECT_EQ(IsDigit(c), ascii && std::isdigit(i) != 0) << i;
    EXPECT_EQ(IsLetter(c), ascii && std::isalpha(i) != 0) << i;
    EXPECT_EQ(IsSpace(c), ascii && std::isspace(i) != 0) << i;
    EXPECT_EQ(LowerAscii(c), ascii ? static_cast<char>(std::tolower(i)) : c) << i;
  }
  EXPECT_EQ(LowerAscii("A\u00C9z"), "a\u00C9z");
}

TEST(Text, TrimTakesBothEndsAndNothingBetween) {
  EXPECT_EQ(Trim(" \t\r\n\f\va b\n"), "a b");
  EXPECT_EQ(Trim(" \n"), "");
  EXPECT_EQ(Trim(" *a*: ", "*:"), "a");
}

TEST(Text, HexAndJoin) {
  constexpr std::array<unsigned char, 3> kBytes = {0, 0x9a, 0xff};
  EXPECT_EQ(Hex(std::as_bytes(std::span(kBytes))), "009aff");
  EXPECT_EQ(Join({"a", "", "b"}), "a, , b");
  EXPECT_EQ(Join({}), "");
  EXPECT_EQ(Join({"a", "b"}, "-"), "a-b");
}

}  // namespace
}  // namespace plumb
