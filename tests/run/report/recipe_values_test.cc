// Options of a resolved recipe as flat values. run/report/recipe_values.h
#include "run/report/recipe_values.h"

#include <gtest/gtest.h>

#include "configs/config.h"

namespace plumb::run {
namespace {

TEST(RecipeValuesTest, ReadsWhatToTomlWrites) {
  configs::Config config;
  config.run.seed = 17;
  config.model.path = "models/a \"b\" \\ c\n\u00e4";
  config.optimizer.learning_rate = 1e-5;
  config.metrics.tensorboard = false;
  config.reward.parts.resize(2);
  config.reward.parts[0].kind = "answer";
  config.reward.parts[1].kind = "length";
  config.reward.parts[1].args = {"a = 1", "]"};
  const std::string toml = configs::ToToml(config);
  const RecipeValues values = ReadRecipeValues(toml);
  EXPECT_EQ(NumberOf(values, "run.seed", 0), 17);
  EXPECT_EQ(TextOf(values, "model.path"), config.model.path);
  EXPECT_EQ(NumberOf(values, "optimizer.learning_rate", 0), 1e-5);
  EXPECT_EQ(std::get<bool>(values.at("metrics.tensorboard")), false);
  EXPECT_EQ(TextOf(values, "reward.parts.0.kind"), "answer");
  EXPECT_EQ(TextOf(values, "reward.parts.1.kind"), "length");
  EXPECT_EQ(TextOf(values, "reward.parts.1.args"), "[\"a = 1\", \"]\"]");
  // Every option, not only those above.
  size_t options = 0;
  for (size_t at = 0; (at = toml.find(" = ", at)) != std::string::npos; at += 3)
    options += toml.rfind('\n', at) + 1 == toml.find_last_of("\n ", at - 1) + 1;
  EXPECT_GT(options, 150u);
  EXPECT_EQ(values.size(), options);
}

TEST(RecipeValuesTest, WhatIsOfAnotherFormIsLeftOut) {
  const RecipeValues values = ReadRecipeValues(
      "[run]\nsteps = many\nseed=3\nname = \"open\n# a = 1\nrate = 0.5 # half\n\n[algorithm]\nname "
      "= "
      "\"grpo\"");
  EXPECT_EQ(values.size(), 1u);
  EXPECT_EQ(TextOf(values, "algorithm.name"), "grpo");
  EXPECT_EQ(TextOf(values, "run.name"), "");
  EXPECT_EQ(NumberOf(values, "run.steps", -1), -1);
}

}  // namespace
}  // namespace plumb::run
