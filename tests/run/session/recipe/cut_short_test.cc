// run/session/recipe/cut_short.h: fewer steps than the recipe's, and its own bar.
#include "run/session/recipe/cut_short.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(CutShortTest, IsARunOfFewerStepsUnderTheRecipesOwnBar) {
  const plumb::testing::TempFolder temp;
  const std::string recipe = plumb::testing::SourcePath("configs/toy_grpo.toml");
  const configs::Config whole = configs::LoadRecipe(recipe).config;
  ASSERT_GT(whole.eval.bar, 0);
  const std::string identity = temp / "run.json";
  RealFileSystem().WriteFileAtomic(identity,
                                   nlohmann::json{{"recipe_has", StepsAndBar(recipe)}}.dump());
  EXPECT_EQ(StepsBeforeTheCut(identity, whole), 0);
  configs::Config cut = whole;
  cut.run.steps = 1;
  EXPECT_EQ(StepsBeforeTheCut(identity, cut), whole.run.steps);
  cut.eval.bar = 0.99;  // asked for together with the steps
  EXPECT_EQ(StepsBeforeTheCut(identity, cut), 0);
  cut.eval.bar = whole.eval.bar;
  EXPECT_TRUE(StepsAndBar("/no/recipe.toml").is_null());
  EXPECT_EQ(StepsBeforeTheCut(temp / "none", cut), 0);
  for (const char* text :
       {"{\"recipe_has\": null}", "{\"recipe_has\": {\"steps\": 0.5, \"bar\": 1}}", "{}", "[1]",
        "no JSON"}) {
    RealFileSystem().WriteFileAtomic(identity, text);
    EXPECT_EQ(StepsBeforeTheCut(identity, cut), 0) << text;
  }
}

}  // namespace
}  // namespace plumb::run
