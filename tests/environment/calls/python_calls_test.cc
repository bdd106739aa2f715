// Calls in Python become JSON; what is none says where.
#include "environment/calls/python_calls.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace plumb::environment {
namespace {

TEST(PythonCalls, BecomeJson) {
  std::string malformed;
  const auto calls = ReadPythonCalls(
      R"( [weather(city="Köln", days=3, exact=True), ns.move(to={'x': [1, -2.5], 'y': None},)"
      R"( why='it\'s \\ "here"\n'), now()] )",
      &malformed);
  ASSERT_EQ(malformed, "");
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0].name, "weather");
  EXPECT_EQ(nlohmann::json::parse(calls[0].arguments),
            nlohmann::json({{"city", "Köln"}, {"days", 3}, {"exact", true}}));
  EXPECT_EQ(calls[1].name, "ns.move");
  const auto moved = nlohmann::json::parse(calls[1].arguments);
  EXPECT_EQ(moved["to"], nlohmann::json::parse(R"({"x": [1, -2.5], "y": null})"));
  EXPECT_EQ(moved["why"], "it's \\ \"here\"\n");
  EXPECT_EQ(calls[2].arguments, "{}");
}

TEST(PythonCalls, WhatCannotBeReadSaysWhere) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "begins with ["},
      {"f(a=1)", "begins with ["},
      {"[]", "without a call"},
      {"[f]", "a call is name(argument=value)"},
      {"[f(1)]", "an argument of f is name=value"},
      {"[f(a=1) g()]", "between two calls stands a comma"},
      {"[f(a=1", "a value has no end"},
      {"[f(a='x)]", "a text is not closed"},
      {"[f()] and", "stands behind the list"},
      {"[f(", "an argument of f"},
      {"[f(a=1, b=2, a=3)]", "the argument 'a' of f is given twice"},
  };
  for (const auto& [list, says] : cases) {
    std::string malformed;
    ReadPythonCalls(list, &malformed);
    EXPECT_NE(malformed.find(says), std::string::npos) << list << ": " << malformed;
  }
}

}  // namespace
}  // namespace plumb::environment
