#include "common/text/name_pattern.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb {
namespace {

using Where = NamePattern::Where;

bool Matches(const std::string& pattern, Where where, const std::string& name) {
  return NamePattern(pattern, where, "policy.frozen").Matches(name);
}

TEST(NamePatternTest, ANameMeansItself) {
  EXPECT_TRUE(Matches("layers.1.", Where::kAnywhere, "model.layers.1.mlp"));
  EXPECT_FALSE(Matches("layers.1.", Where::kAnywhere, "model.layers.12.mlp"));
  EXPECT_TRUE(Matches("q_proj", Where::kAll, "q_proj"));
  EXPECT_FALSE(Matches("q_proj", Where::kAll, "layers.1.q_proj"));
}

TEST(NamePatternTest, TheRestAreRegularExpressions) {
  EXPECT_TRUE(Matches("layers\\.(0|1)\\.", Where::kAnywhere, "model.layers.1.mlp"));
  EXPECT_FALSE(Matches("^layers", Where::kAnywhere, "model.layers.1.mlp"));
  EXPECT_TRUE(Matches(".*\\.(q|v)_proj", Where::kAll, "layers.1.v_proj"));
  EXPECT_FALSE(Matches(".*\\.(q|v)_proj", Where::kAll, "layers.1.v_proj.weight"));
}

// re.match(rf"(.*\.)?({pattern})$", name), as PEFT has it.
TEST(NamePatternTest, AnEndBeginsBehindADot) {
  EXPECT_TRUE(Matches("q_proj", Where::kEnd, "model.layers.1.q_proj"));
  EXPECT_TRUE(Matches("q_proj", Where::kEnd, "q_proj"));
  EXPECT_FALSE(Matches("proj", Where::kEnd, "model.layers.1.q_proj"));
  EXPECT_TRUE(Matches("layers.1.q_proj|down_proj", Where::kEnd, "model.layers.1.q_proj"));
  EXPECT_TRUE(Matches("layers.1.q_proj|down_proj", Where::kEnd, "model.layers.9.down_proj"));
  EXPECT_FALSE(Matches("layers.1.q_proj", Where::kEnd, "model.layers.11.q_proj"));
  EXPECT_TRUE(Matches("layers.1.q.proj", Where::kEnd, "model.layers.1.q_proj"));  // '.' is any
}

TEST(NamePatternTest, WhatIsNoPatternIsSaid) {
  for (const char* pattern : {"(?!x)y+", "a)(b", "(a", ""}) {
    try {
      NamePattern(pattern, Where::kEnd, "policy.rank_pattern");
      ADD_FAILURE() << pattern;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find("policy.rank_pattern"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace plumb
