// JSON from outside: what is refused, where, and what it may cost.
#include "common/base/json/strict_json.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb {
namespace {

// What the refusal says; "" when it was taken.
std::string Refusal(const std::string& text, int64_t max_cost = kMaxJsonCost) {
  try {
    ParseStrictJson(text, "some/file.json", max_cost);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_EQ(e.where(), "some/file.json");
    return e.message();
  }
}

TEST(StrictJson, KeepsValuesAndTheOrderOfKeys) {
  EXPECT_EQ(ParseStrictJson(R"({"b": [1, 2.5, "x", null, true], "a": {"c": "\u00e9"}})").dump(),
            "{\"b\":[1,2.5,\"x\",null,true],\"a\":{\"c\":\"\u00e9\"}}");
}

TEST(StrictJson, RefusesDepthTwinsRestsAndWhatIsNoUtf8) {
  EXPECT_EQ(Refusal(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_EQ(Refusal(std::string(65, '[') + std::string(65, ']')), "nested deeper than 64");
  EXPECT_EQ(Refusal(std::string(1000000, '[')), "nested deeper than 64");
  EXPECT_EQ(Refusal(R"({"a": 1, "b": {"a": 2}, "a": 3})"),
            "the key 'a' stands twice in one object");
  EXPECT_EQ(Refusal("{} {}"), "is not valid JSON at byte 4");
  EXPECT_EQ(Refusal(""), "is not valid JSON at byte 1");
  EXPECT_NE(Refusal("{\"a\": \xff}"), "");
}

TEST(StrictJson, RefusesMoreValuesThanItMayCost) {
  EXPECT_EQ(Refusal("[1,2,3]", 10), "");
  EXPECT_NE(Refusal("[1,2,3]", 9), "");
}

}  // namespace
}  // namespace plumb
