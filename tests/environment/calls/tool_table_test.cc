// Schemas of tools, and whether a call's arguments are what they take.
#include "environment/calls/tool_table.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"

namespace plumb::environment {
namespace {

TEST(ToolTable, ReadsBothForms) {
  const ToolTable tools(
      R"([{"type":"function","function":{"name":"add"}},{"name":"now","parameters":{}}])");
  EXPECT_EQ(tools.names(), (std::vector<std::string>{"add", "now"}));
  EXPECT_EQ(nlohmann::json::parse(tools.json())[1]["function"]["name"], "now");
  EXPECT_TRUE(ToolTable("[]").empty());
  EXPECT_EQ(ToolTable("[]").json(), "");
  for (const char* bad : {"{}", "[1]", "[{\"name\":\"\"}]", "[{\"name\":\"a\"},{\"name\":\"a\"}]",
                          "[{\"name\":\"a\",\"parameters\":[]}]", "no"}) {
    EXPECT_THROW(ToolTable{bad}, Error) << bad;
  }
}

struct Case {
  const char* arguments;
  const char* says;  // a part of the sentence; "": it fits
};

TEST(ToolTable, ChecksArguments) {
  const ToolTable tools(
      R"([{"name":"f","parameters":{"type":"object","required":["n"],"additionalProperties":false,
          "properties":{"n":{"type":"integer","minimum":1,"maximum":9},
          "unit":{"type":"string","enum":["km","miles"]},"text":{"type":"string","maxLength":2},
          "list":{"type":"array","items":{"type":"number"},"maxItems":2},
          "either":{"anyOf":[{"type":"integer"},{"type":"string"}]},
          "null":{"type":"string","nullable":true},"box":{"type":"object","required":["x"]}}}}])");
  for (const Case& c :
       std::vector<Case>{{R"({"n":3})", ""},
                         {R"({"n":3.0,"unit":"km","list":[1,2.5],"either":"x","null":null})", ""},
                         {R"({"n":3,"text":"äö"})", ""},
                         {R"({})", "'n' is missing"},
                         {R"({"n":"3"})", "'n' has to be of type integer, not \"3\""},
                         {R"({"n":3.5})", "of type integer"},
                         {R"({"n":0})", "1 or more"},
                         {R"({"n":10})", "9 or less"},
                         {R"({"n":3,"unit":"m"})", "one of [\"km\",\"miles\"]"},
                         {R"({"n":3,"text":"abc"})", "at most 2"},
                         {R"({"n":3,"list":[1,"b"]})", "'list'[1]"},
                         {R"({"n":3,"list":[1,2,3]})", "at most 2"},
                         {R"({"n":3,"either":[]})", "of type integer"},
                         {R"({"n":3,"box":{}})", "'box'"},
                         {R"({"n":3,"other":1})", "'other' is no argument"}}) {
    const Problem wrong = tools.Check({"", "f", c.arguments});
    EXPECT_EQ(wrong.has_value(), *c.says != '\0') << c.arguments << wrong.value_or("");
    EXPECT_NE(wrong.value_or("").find(c.says), std::string::npos) << *wrong;
  }
  EXPECT_EQ(tools.Check({"", "g", "{}"}), "there is no tool 'g'; there is: f");
}

TEST(ToolTable, ArgumentsThatCameAsTextsBecomeWhatTheSchemaSays) {
  const ToolTable tools(
      R"([{"name":"f","parameters":{"type":"object","properties":{"n":{"type":"integer"},
          "text":{"type":"string"},"on":{"type":"boolean"},"list":{"type":"array"},
          "maybe":{"anyOf":[{"type":"number"},{"type":"null"}]},"any":{},
          "unit":{"type":"string","enum":["km"]}}}}])");
  const std::pair<const char*, const char*> cases[] = {
      {R"({"n":"3"})", R"({"n":3})"},
      {R"({"text":"3"})", R"({"text":"3"})"},
      {R"({"on":"True"})", R"({"on":true})"},
      {R"({"on":"false"})", R"({"on":false})"},
      {R"({"list":"[1, \"a\"]"})", R"({"list":[1,"a"]})"},
      {R"({"maybe":"None"})", R"({"maybe":null})"},
      {R"({"maybe":"2.5"})", R"({"maybe":2.5})"},
      {R"({"any":"1"})", R"({"any":"1"})"},
      {R"({"other":"1"})", R"({"other":"1"})"},
      {R"({"unit":"12"})", R"({"unit":"12"})"},  // a text was wanted, though not this one
      {R"({"n":"three"})", R"({"n":"three"})"},
      {R"({"n":"3.5"})", R"({"n":3.5})"},
  };
  for (const auto& [text, typed] : cases) {
    const ToolCall call = tools.Typed({"id", "f", text, /*spelled=*/true});
    EXPECT_EQ(call, (ToolCall{"id", "f", typed})) << text;
    // Of a form that says types nothing is changed.
    EXPECT_EQ(tools.Typed({"id", "f", text}).arguments, text);
  }
  EXPECT_EQ(tools.Check(tools.Typed({"", "f", R"({"n":"3.5"})", true})),
            "'n' has to be of type integer, not 3.5");
  EXPECT_EQ(tools.Typed({"", "g", R"({"n":"3"})", true}).arguments, R"({"n":"3"})");
}

}  // namespace
}  // namespace plumb::environment
