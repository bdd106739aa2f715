// reward/rules/json_schema.h: each keyword with a valid and an invalid document, refusals, and the
// rule's values.
#include "reward/rules/json_schema.h"

#include "tests/reward/rule_testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using nlohmann::json;

struct Case {
  const char* schema;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;
};

TEST(JsonSchema, Keywords) {
  const Case cases[] = {
      {"true", {"1", "null"}, {}},
      {"false", {}, {"1", "null"}},
      {"{}", {"1", "[]"}, {}},
      {R"({"type":"integer"})", {"1", "1.0", "-3", "1e3"}, {"1.5", "\"1\"", "null", "true"}},
      {R"({"type":"number"})", {"1", "1.5"}, {"\"1\"", "false"}},
      {R"({"type":["string","null"]})", {"\"\"", "null"}, {"0", "{}"}},
      {R"({"type":"object"})", {"{}"}, {"[]"}},
      {R"({"type":"array"})", {"[]"}, {"{}"}},
      {R"({"type":"boolean"})", {"true"}, {"0", "\"true\""}},
      {R"({"enum":[1,"a",null,[2],{"b":3}]})",
       {"1", "1.0", "\"a\"", "null", "[2]", "{\"b\":3}"},
       {"2", "\"b\"", "[]", "false"}},
      {R"({"const":{"a":1}})", {"{\"a\":1}"}, {"{\"a\":2}", "{\"a\":1,\"b\":2}", "1"}},
      {R"({"minimum":1,"maximum":3})", {"1", "3", "\"x\"", "[]"}, {"0.9", "3.1"}},
      {R"({"exclusiveMinimum":1,"exclusiveMaximum":3})", {"2", "1.1"}, {"1", "3"}},
      {R"({"multipleOf":0.1})", {"0.3", "1", "0", "\"x\""}, {"0.35"}},
      {R"({"multipleOf":3})", {"9", "-3"}, {"10"}},
      {R"({"minLength":2,"maxLength":3})",
       {"\"ab\"", "\"\u00e9\u00e9\u00e9\"", "5"},
       {"\"a\"", "\"abcd\""}},
      {R"({"pattern":"^a+$"})", {"\"aa\"", "5"}, {"\"ab\""}},
      {R"({"pattern":"b"})", {"\"abc\""}, {"\"ac\""}},
      {R"({"required":["a","b"]})", {"{\"a\":1,\"b\":null}", "[]"}, {"{\"a\":1}", "{}"}},
      {R"({"properties":{"a":{"type":"string"}}})",
       {"{}", "{\"a\":\"x\"}", "{\"b\":1}", "1"},
       {"{\"a\":1}"}},
      {R"({"properties":{"a":{}},"additionalProperties":false})",
       {"{}", "{\"a\":1}"},
       {"{\"b\":1}"}},
      {R"({"properties":{"a":{}},"additionalProperties":{"type":"integer"}})",
       {"{\"a\":\"x\",\"b\":1}"},
       {"{\"b\":\"x\"}"}},
      {R"({"minProperties":1,"maxProperties":2})",
       {"{\"a\":1}", "[]"},
       {"{}", "{\"a\":1,\"b\":1,\"c\":1}"}},
      {R"({"items":{"type":"integer"}})", {"[]", "[1,2]", "{}"}, {"[1,\"a\"]"}},
      {R"({"prefixItems":[{"type":"string"}],"items":{"type":"integer"}})",
       {"[]", "[\"a\",1]"},
       {"[1]", "[\"a\",\"b\"]"}},
      {R"({"prefixItems":[{"type":"string"}],"items":false})", {"[]", "[\"a\"]"}, {"[\"a\",1]"}},
      {R"({"minItems":1,"maxItems":2,"uniqueItems":true})",
       {"[1]", "[1,\"1\"]"},
       {"[]", "[1,2,3]", "[1,1.0]", "[{\"a\":1},{\"a\":1}]"}},
      {R"({"uniqueItems":false})", {"[1,1]"}, {}},
      {R"({"anyOf":[{"type":"integer"},{"minimum":2}]})", {"1", "2.5", "\"x\""}, {"1.5"}},
      {R"({"oneOf":[{"type":"integer"},{"minimum":2}]})", {"1", "2.5"}, {"1.5", "3"}},
      {R"({"allOf":[{"type":"integer"},{"minimum":2}]})", {"2"}, {"1", "2.5"}},
      {R"({"not":{"type":"integer"}})", {"1.5", "null"}, {"1"}},
      {R"({"$schema":"x","title":"t","description":"d","default":1,"examples":[1],"type":"integer"})",
       {"1"},
       {"\"x\""}},
  };
  for (const Case& c : cases) {
    const JsonSchema schema(json::parse(c.schema));
    for (const char* document : c.valid)
      EXPECT_TRUE(schema.Check(json::parse(document)).valid()) << c.schema << " " << document;
    for (const char* document : c.invalid)
      EXPECT_FALSE(schema.Check(json::parse(document)).valid()) << c.schema << " " << document;
  }
}

TEST(JsonSchema, WhatIsNotCheckedIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"$ref":"#"})", "'$ref'"},
      {R"({"properties":{"a":{"format":"date"}}})", "/properties/a/format"},
      {R"({"proprties":{}})", "'proprties'"},
      {R"({"type":"int"})", "unknown type"},
      {R"({"type":[]})", "names no type"},
      {R"({"items":[{}]})", "/items"},
      {R"({"minimum":"1"})", "/minimum"},
      {R"({"minLength":-1})", "/minLength"},
      {R"({"minItems":1.5})", "/minItems"},
      {R"({"multipleOf":0})", "/multipleOf"},
      {R"({"required":"a"})", "/required"},
      {R"({"enum":1})", "/enum"},
      {R"({"anyOf":[]})", "/anyOf"},
      {R"({"anyOf":[{"a":1}]})", "/anyOf/0/a"},
      {R"s({"pattern":"(?=a)"})s", "(?="},
      {R"s({"pattern":"("})s", "does not compile"},
      {"3", "an object, true or false"},
  };
  for (const auto& [schema, message] : cases) {
    const std::string refusal =
        Refusal(TestPart("json_schema", "", {std::string("schema=") + schema}));
    EXPECT_NE(refusal.find(message), std::string::npos) << schema << ": " << refusal;
  }
  std::string deep = "{}";
  for (int i = 0; i < 70; ++i) deep = R"({"not":)" + deep + "}";
  EXPECT_NE(Refusal(TestPart("json_schema", "", {"schema=" + deep})).find("deep"),
            std::string::npos);
  EXPECT_NE(Refusal(TestPart("json_schema")).find("schema.json"), std::string::npos);
  EXPECT_NE(Refusal(TestPart("json_schema", "", {"schema={"})).find("no JSON"), std::string::npos);
}

constexpr char kPerson[] =
    R"(schema={"type":"object","properties":{"name":{"type":"string","minLength":1},"age":{"type":"integer","minimum":0}},)"
    R"("required":["name","age"],"additionalProperties":false})";

TEST(JsonSchemaRule, LowMiddleHigh) {
  EXPECT_EQ(RuleValue("json_schema", {kPerson}, R"({"name":"Ada","age":36})"), 1);
  EXPECT_EQ(RuleValue("json_schema", {kPerson}, R"({"name":"Ada","age":-1})"), 0);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, "Ada is 36."), 0);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, R"({"name":"Ada","age":36} so)"), 0);
  // type, two names required, and two checks a property: of seven only minimum fails.
  EXPECT_DOUBLE_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, R"({"name":"Ada","age":-1})"),
                   6.0 / 7);
  EXPECT_DOUBLE_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, "[]"), 0);
  EXPECT_DOUBLE_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, "{}"), 1.0 / 3);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "partial=1"}, R"({"name":"Ada","age":36})"), 1);
}

TEST(JsonSchemaRule, WhereTheDocumentStands) {
  const std::string document = R"({"name":"Ada","age":36})";
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=answer"},
                      "<think>{}</think><answer>" + document + "</answer>"),
            1);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=answer"}, document), 0);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=fence"},
                      "So:\n```json\n" + document + "\n```\nDone."),
            1);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=fence"},
                      "```\n{}\n``` and ```\n" + document + "\n```"),
            1);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=fence"}, "```"), 0);
  EXPECT_EQ(RuleValue("json_schema", {kPerson, "where=fence"}, "``````"), 0);
}

TEST(JsonSchemaRule, HostileDocuments) {
  EXPECT_EQ(RuleValue("json_schema", {"schema={}"}, std::string(100000, '[')), 0);
  EXPECT_EQ(
      RuleValue("json_schema", {"schema={}"}, std::string(10000, '[') + std::string(10000, ']')), 0)
      << "nested too deep";
  EXPECT_EQ(RuleValue("json_schema", {"schema={}"}, "\"\xFF\""), 0) << "no UTF-8, no JSON";
  EXPECT_EQ(RuleValue("json_schema", {R"s(schema={"pattern":"^(a+)+$"})s"},
                      '"' + std::string(20000, 'a') + "!\""),
            0);
}

TEST(JsonSchemaRule, SchemaFromAFile) {
  const testing::TempFolder folder;
  std::ofstream(folder / "s.json") << R"({"type":"integer"})";
  const auto part = TestPart("json_schema", folder / "s.json");
  EXPECT_EQ(RuleValues(part, TestGroup({"3", "x"})), (std::vector<double>{1, 0}));
  const std::string before = MakeRule(part)->digest();
  std::ofstream(folder / "s.json") << R"({"type":"string"})";
  EXPECT_NE(MakeRule(part)->digest(), before) << "another schema is another function";
}

}  // namespace
}  // namespace plumb::reward
