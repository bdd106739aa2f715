// Calls whose arguments stand in tags: names and values are views of the text, values without the
// line ends around them.
#include "environment/calls/tagged_call.h"

#include <gtest/gtest.h>

#include <string>

namespace plumb::environment {
namespace {

TEST(TaggedCall, IsWhatBeginsAsOne) {
  for (const char* body : {"<function=f></function>", "\n<invoke name=\"f\"></invoke>", "f",
                           "get_weather\n<arg_key>a</arg_key><arg_value>1</arg_value>", " a.b-c "})
    EXPECT_TRUE(IsTagged(body)) << body;
  for (const char* body : {"", "{\"name\": \"f\"}", "[]", "two words", "{'name': 'a'}", "<other>"})
    EXPECT_FALSE(IsTagged(body)) << body;
}

TEST(TaggedCall, ValuesAreWhatStandsBetweenTheTags) {
  const std::string body =
      "<function=write>\n<parameter=path>\n a.txt \n</parameter>\n"
      "<parameter=text>\n<b>1</b>\n\n</parameter>\n<parameter=none></parameter></function>";
  const auto calls = ReadTagged(body);
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].malformed, "");
  EXPECT_EQ(calls[0].name, "write");
  ASSERT_EQ(calls[0].arguments.size(), 3u);
  EXPECT_EQ(calls[0].arguments[0].second, " a.txt ") << "blanks are the value's";
  EXPECT_EQ(calls[0].arguments[1].second, "<b>1</b>\n") << "one line end is the template's";
  EXPECT_EQ(calls[0].arguments[2].second, "");
  const auto glm = ReadTagged("f<arg_key>k</arg_key><arg_value>two\nlines</arg_value>");
  ASSERT_EQ(glm[0].arguments.size(), 1u) << glm[0].malformed;
  EXPECT_EQ(glm[0].arguments[0].second, "two\nlines");
}

TEST(TaggedCall, WhatCannotBeReadSaysWhereAndHowItShouldLook) {
  const std::pair<const char*, const char*> cases[] = {
      {"<function=f", "not closed by >"},
      {"<function=f>1</function>", "stands neither <parameter= nor </function>"},
      {"<function=f><parameter=a>1</function>", "not closed by </parameter>"},
      {"<function=f></function> and", "stands behind a call"},
      {"<invoke name=\"f\"><parameter name=\"a\">1", "not closed by </parameter>"},
      {"<function=></function>", "without a name"},
      {"<function=f><parameter=a>1</parameter><parameter=a>2</parameter>", "is given twice"},
      {"f<arg_key>a</arg_key>1", "has no <arg_value>"},
      {"f<arg_key>a", "does not begin with <arg_key>"},
  };
  for (const auto& [body, says] : cases) {
    const auto calls = ReadTagged(body);
    ASSERT_FALSE(calls.empty());
    EXPECT_NE(calls.back().malformed.find(says), std::string::npos)
        << body << ": " << calls.back().malformed;
    EXPECT_NE(std::string(calls.back().like), "") << body;
  }
}

TEST(TaggedCall, ACallThatIsNotClosedIsOfTheFormItBeganIn) {
  const auto like = [](const char* body, bool minimax = false) {
    return std::string(LikeTagged(body, minimax));
  };
  EXPECT_NE(like("\n<function=f>").find("<function=tool>"), std::string::npos);
  EXPECT_NE(like("", /*minimax=*/true).find("<invoke name="), std::string::npos);
  EXPECT_NE(like("f<arg_key>a").find("<arg_key>argument"), std::string::npos);
  EXPECT_EQ(like("{\"name\": \"f\""), "");
}

}  // namespace
}  // namespace plumb::environment
