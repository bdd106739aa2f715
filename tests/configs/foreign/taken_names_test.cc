// configs/foreign/taken_names.h: as what a name of another system is taken is said once.
#include "configs/foreign/taken_names.h"

#include <gtest/gtest.h>

#include "configs/recipe_problems.h"

namespace plumb::configs {
namespace {

using Notes = std::vector<std::string>;

TEST(TakenNames, AreSaidOnceEach) {
  TakenNames names;
  const std::string coef = "algorithm.kl_coef";
  names.Take(coef, "algorithm.beta", "");
  names.Take(coef, "algorithm.beta", "algorithm.beta=0.1");
  names.Take(coef, coef, "algorithm.kl_coef=0.1");
  names.Take(coef, coef, "algorithm={kl_coef=0.1}");
  names.Take("data.map", "data.map", "data.map.prompt=a");
  names.Take("optimizer.learning_rate", "optimizer.learning_rate", "optim.lr = 1");
  names.Take("algorithm.objective", "algorithm.objective", "algorithm.loss_type=bnpo");
  names.Take("algorithm.aggregation", "algorithm.aggregation", "algorithm.loss_type=bnpo");
  Notes notes;
  names.Say(notes);
  EXPECT_EQ(notes, (Notes{"algorithm.beta is taken as algorithm.kl_coef",
                          "optim.lr is taken as optimizer.learning_rate",
                          "algorithm.loss_type is taken as algorithm.objective and "
                          "algorithm.aggregation"}));
}

TEST(TakenNames, OfARecipeAndOfSetAreNotes) {
  Notes problems, notes;
  ParseRecipe(
      "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n[optimizer]\n"
      "lr = 1e-6\n",
      "r.toml", {"rollout.num_generations=8", "algorithm.beta=0.04", "rollout.temperature=1"},
      problems, &notes);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(notes, (Notes{"optimizer.lr is taken as optimizer.learning_rate",
                          "rollout.num_generations is taken as rollout.samples_per_prompt",
                          "algorithm.beta is taken as algorithm.kl_coef"}));
}

}  // namespace
}  // namespace plumb::configs
