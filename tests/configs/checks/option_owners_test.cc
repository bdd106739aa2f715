// configs/checks/option_owners.h: whose an option is that the recipe's algorithm does not read.
#include "configs/checks/option_owners.h"

#include <gtest/gtest.h>

#include <vector>

#include "configs/recipe_problems.h"

namespace plumb::configs {
namespace {

TEST(OptionOwners, OfAnOptionThatIsReadNothingIsSaid) {
  for (const char* option : {"preference.beta", "preference.max_tokens", "optimizer.learning_rate",
                             "algorithm.name", "run.steps, which counts updates"})
    EXPECT_EQ(OwnersUnless(AlgorithmName::kDpo, option), "") << option;
  for (const char* option : {"algorithm.clip_low", "critic.value_clip", "algorithm.lam",
                             "rollout.max_new_tokens", "sft.batch", "sft.learning_rate"})
    EXPECT_EQ(OwnersUnless(AlgorithmName::kPpo, option), "") << option;
  EXPECT_EQ(OwnersUnless(AlgorithmName::kSft, "sft.max_tokens"), "");
  EXPECT_EQ(OwnersUnless(AlgorithmName::kRewardModel, "preference.centering"), "");
}

TEST(OptionOwners, OfAnotherAlgorithmsItIsNamed) {
  const AlgorithmName grpo = AlgorithmName::kGrpo;
  EXPECT_EQ(OwnersUnless(grpo, "preference.beta"),
            " (of algorithm.name = \"dpo\"; the recipe's is \"grpo\")");
  EXPECT_EQ(OwnersUnless(grpo, "preference.max_tokens"),
            " (of algorithm.name = \"dpo\" or \"reward_model\"; the recipe's is \"grpo\")");
  EXPECT_EQ(OwnersUnless(AlgorithmName::kDpo, "preference.centering"),
            " (of algorithm.name = \"reward_model\"; the recipe's is \"dpo\")");
  EXPECT_EQ(OwnersUnless(grpo, "critic.value_clip"),
            " (of algorithm.name = \"ppo\"; the recipe's is \"grpo\")");
  EXPECT_EQ(OwnersUnless(grpo, "algorithm.lam"),
            " (of algorithm.name = \"ppo\"; the recipe's is \"grpo\")");
  EXPECT_EQ(OwnersUnless(grpo, "sft.max_tokens"),
            " (of algorithm.name = \"sft\"; the recipe's is \"grpo\")");
  for (const char* option : {"rollout.max_new_tokens", "algorithm.clip_low"})
    EXPECT_EQ(OwnersUnless(AlgorithmName::kSft, option),
              " (of algorithms that draw answers, as \"grpo\"; the recipe's is \"sft\")");
}

// What TRL's trainers call options of theirs, in a recipe of another algorithm.
TEST(OptionOwners, StandBehindAnUnknownKeysOption) {
  const std::string grpo = "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n",
                    sft = "[data]\ntrain = \"arithmetic\"\n[algorithm]\nname = \"sft\"\n";
  const auto problem = [](const std::string& recipe, const std::string& set) {
    std::vector<std::string> problems;
    ParseRecipe(recipe, "r.toml", {set}, problems);
    return problems.size() == 1 ? problems[0] : std::to_string(problems.size()) + " problems";
  };
  EXPECT_EQ(problem(grpo, "desirable_weight=2"),
            "--set desirable_weight=2: unknown key 'desirable_weight': here it is "
            "preference.desirable_weight (of algorithm.name = \"dpo\"; the recipe's is \"grpo\")");
  EXPECT_EQ(problem(grpo, "algorithm.cliprange_value=0.2"),
            "--set algorithm.cliprange_value=0.2: unknown key 'algorithm.cliprange_value': here it "
            "is critic.value_clip (of algorithm.name = \"ppo\"; the recipe's is \"grpo\")");
  EXPECT_EQ(problem(sft, "num_generations=4"),
            "--set num_generations=4: unknown key 'num_generations': here it is "
            "rollout.samples_per_prompt (of algorithms that draw answers, as \"grpo\"; the "
            "recipe's is \"sft\")");
  EXPECT_EQ(problem(grpo, "num_generations=4"),
            "--set num_generations=4: unknown key 'num_generations': here it is "
            "rollout.samples_per_prompt");
}

}  // namespace
}  // namespace plumb::configs
