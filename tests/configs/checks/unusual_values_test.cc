// configs/checks/unusual_values.h: a rate that is a slip of units is said.
#include "configs/checks/unusual_values.h"

#include <gtest/gtest.h>

#include "configs/recipe_problems.h"

namespace plumb::configs {
namespace {

using Notes = std::vector<std::string>;

TEST(UnusualValues, ARateAboveOneIsSaidWhereItTrains) {
  Config config;
  Notes notes;
  SayUnusual(config, notes);
  EXPECT_TRUE(notes.empty()) << notes.front();
  config.optimizer.learning_rate = 1;
  config.optimizer.muon_learning_rate = config.critic.learning_rate = config.sft.learning_rate = 2;
  SayUnusual(config, notes);
  EXPECT_TRUE(notes.empty()) << "at most 1, or read by nothing: " << notes.front();
  config.optimizer.learning_rate = 5;
  config.optimizer.name = OptimizerName::kMuon;
  config.algorithm.name = AlgorithmName::kPpo;
  config.sft.steps = 1;
  SayUnusual(config, notes);
  ASSERT_EQ(notes.size(), 4u);
  EXPECT_EQ(notes[0],
            "optimizer.learning_rate = 5 is above 1, which breaks any model; usual rates are 1e-6 "
            "to 1e-3 (5e-06?)");
  EXPECT_TRUE(notes[3].starts_with("sft.learning_rate = 2 is above 1")) << notes[3];
}

TEST(UnusualValues, AreNotesOfARecipeAndARateOfNothingIsAProblem) {
  const char* recipe = "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n";
  Notes problems, notes;
  ParseRecipe(recipe, "r.toml", {"optimizer.learning_rate=5"}, problems, &notes);
  EXPECT_TRUE(problems.empty()) << problems.front();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_TRUE(notes[0].starts_with("optimizer.learning_rate = 5")) << notes[0];
  ParseRecipe(recipe, "r.toml", {"optimizer.learning_rate=0"}, problems, &notes);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("optimizer.learning_rate = 0.0 has to be positive"), std::string::npos)
      << problems[0];
}

}  // namespace
}  // namespace plumb::configs
