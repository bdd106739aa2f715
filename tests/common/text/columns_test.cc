#include "common/text/columns.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(ColumnsTest, CountsWhatATerminalShows) {
  EXPECT_EQ(ColumnsOf("abc"), 3);
  EXPECT_EQ(ColumnsOf("\xC3\xA9"), 1);                  // é
  EXPECT_EQ(ColumnsOf("e\xCC\x81"), 1);                 // e and a mark
  EXPECT_EQ(ColumnsOf("\xE6\xBC\xA2\xE5\xAD\x97"), 4);  // 漢字
  EXPECT_EQ(ColumnsOf("\xF0\x9F\x98\x80"), 2);          // a face
  EXPECT_EQ(ColumnsOf("\xE2\x96\x88\xE2\xA0\x81"), 2);  // block, braille
  EXPECT_EQ(ColumnsOf("\xFF"), 1);
}

TEST(ColumnsTest, ALineFromOutsideSteersNothing) {
  EXPECT_EQ(PrintableLine("a\nb"), "a\u23CEb");
  EXPECT_EQ(PrintableLine("\x1b[2Jx"), "\u241B[2Jx");
  EXPECT_EQ(PrintableLine("\x7f\t\r"), "\u2421 \u240D");
  EXPECT_EQ(PrintableLine("\xC2\x9B"
                          "31m"),
            "\uFFFD31m")
      << "the one-character form of escape [";
  EXPECT_EQ(PrintableLine("a\u202Eb\u2066c"), "a\uFFFDb\uFFFDc");
  EXPECT_EQ(PrintableLine("\xFFok"), "\uFFFDok");
  EXPECT_EQ(PrintableLine("\u2764\uFE0F"), "\u2764") << "its width is a matter of opinion";
}

TEST(ColumnsTest, SeveralLinesStaySo) {
  EXPECT_EQ(PrintableLines("a\x1b\n\nb\r"), "a\u241B\n\nb\u240D");
  EXPECT_EQ(PrintableLines(""), "");
}

TEST(ColumnsTest, CutsAndPadsToTheColumn) {
  EXPECT_EQ(Shortened("abcdef", 6), "abcdef");
  EXPECT_EQ(Shortened("abcdef", 5), "abcd\u2026");
  EXPECT_EQ(Shortened("abcdef", 1), "\u2026");
  EXPECT_EQ(Shortened("abcdef", 0), "");
  // Half of a wide character does not fit: a column stays free.
  EXPECT_EQ(Shortened("\u6F22\u5B57\u6F22", 4), "\u6F22\u2026");
  EXPECT_EQ(Padded("\u6F22\u5B57\u6F22", 4), "\u6F22\u2026 ");
  EXPECT_EQ(Padded("ab", 4), "ab  ");
  EXPECT_EQ(Padded("ab", 4, /*right=*/true), "  ab");
  for (int columns = 0; columns < 12; ++columns)
    EXPECT_EQ(ColumnsOf(Padded("a\u6F22e\u0301\U0001F600bcdefgh", columns)), columns);
}

}  // namespace
}  // namespace plumb
