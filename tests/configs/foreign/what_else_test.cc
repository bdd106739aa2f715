// configs/foreign/what_else.h: a recipe that is YAML or JSON is told so.
#include "configs/foreign/what_else.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

TEST(WhatElse, YamlAndJsonAreToldFromBrokenToml) {
  for (const char* text : {"model:\n  path: m\n", "# verl\n\n---\na: 1\n", "lr: 1e-6\n"})
    EXPECT_NE(WhatElse(text, "recipe").find("looks like YAML"), std::string::npos) << text;
  EXPECT_NE(WhatElse("- a\n", "x.yaml").find("looks like YAML"), std::string::npos);
  EXPECT_NE(WhatElse(" {\"a\": 1}", "x").find("this is JSON"), std::string::npos);
  for (const char* text : {"", "[data\n", "a = \"b: c\"\nb =\n", "http://a\n"})
    EXPECT_EQ(WhatElse(text, "r.toml"), "") << text;
}

TEST(WhatElse, IsSaidOfARecipe) {
  try {
    ParseRecipe("trainer:\n  total_epochs: 3\n", "x.yaml", {});
    FAIL();
  } catch (const Error& e) {
    const std::string said = e.what();
    EXPECT_NE(said.find("x.yaml:1"), std::string::npos) << said;
    EXPECT_NE(said.find("recipes are TOML"), std::string::npos) << said;
    EXPECT_NE(said.find("`plumb config new`"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace plumb::configs
