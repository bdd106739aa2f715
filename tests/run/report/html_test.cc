// Text and numbers as they stand on a page. run/report/html.h
#include "run/report/html.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(HtmlTest, TextCannotBecomeMarkup) {
  EXPECT_EQ(EscapeHtml("<a href=\"x\">'&'\n\t\x01\x7f</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;\n\t\u2401\u2421&lt;/a&gt;");
  EXPECT_EQ(ValidUtf8("a\xff\xc3\xa4"), "a\ufffd\u00e4");
}

TEST(HtmlTest, LongTextIsCutBetweenCharactersAndItIsSaid) {
  std::string more;
  EXPECT_EQ(CutText("abc", 3, more), "abc");
  EXPECT_EQ(more, "");
  EXPECT_EQ(CutText("ab\u00e4cd", 3, more), "ab") << "not within the two bytes of one character";
  EXPECT_EQ(more, "4 bytes more");
}

TEST(HtmlTest, NumbersAsPeopleReadThem) {
  EXPECT_EQ(Grouped(1234567), "1\u00a0234\u00a0567");
  EXPECT_EQ(Grouped(-12), "-12");
  EXPECT_EQ(DurationText(61.5), "61.5 s");
  EXPECT_EQ(DurationText(3700), "61 min 40 s");
  EXPECT_EQ(DurationText(7260), "2 h 1 min");
  EXPECT_EQ(DateText(1764439502.9), "2025-11-29 18:05 UTC");
  EXPECT_EQ(DateText(0), "");
}

}  // namespace
}  // namespace plumb::run
