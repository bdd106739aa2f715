// JSON as text: escapes, messages, programs that are not strict.
#include "common/record/json_text.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(JsonText, WrittenTextIsReadBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  all += "\u00e9\u20ac";
  std::string out;
  AppendJsonText(out, all);
  EXPECT_EQ(nlohmann::json::parse(out).get<std::string>(), all);
  EXPECT_EQ(DumpJson("a\xff"), "\"a\ufffd\"");
}

TEST(JsonText, MessagesKeepTheirOtherFieldsAndTheirOwnContent) {
  std::string out;
  AppendJsonMessages(
      out, {{.role = "user", .content = "a\"b", .fields_json = ""},
            {.role = "tool", .content = "", .fields_json = R"({"content":null,"name":"f"})"}});
  EXPECT_EQ(out, R"([{"role":"user","content":"a\"b"},{"role":"tool","content":null,"name":"f"}])");
}

TEST(JsonText, NumbersThatAreNoneBecomeNullAndAreSaid) {
  bool not_finite = false;
  EXPECT_EQ(ParseLooseJson(R"([1, "NaN"])", &not_finite).dump(), R"([1,"NaN"])");
  EXPECT_FALSE(not_finite);
  EXPECT_EQ(ParseLooseJson(R"([NaN, -Infinity, Infinity, "\"NaN"])", &not_finite).dump(),
            R"([null,null,null,"\"NaN"])");
  EXPECT_TRUE(not_finite);
  EXPECT_TRUE(ParseLooseJson("[NaN", &not_finite).is_discarded());
}

TEST(JsonText, DepthIsCountedOutsideOfTexts) {
  EXPECT_FALSE(TooDeep(R"([["[[[\"[["]])", 2));
  EXPECT_TRUE(TooDeep("[[{", 2));
}

TEST(JsonText, WhatIsShownIsShortAndPrintable) {
  EXPECT_EQ(Shown("a\nb\x7f", 10), "a b ");
  EXPECT_EQ(Shown("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace plumb
