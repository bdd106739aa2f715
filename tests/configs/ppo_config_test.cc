// Options of PPO and its critic in configs/config.h: defaults that follow the algorithm, aliases,
// contradictions.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

std::string Recipe(const std::string& algorithm, const std::string& critic = "") {
  return "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n[algorithm]\n" +
         algorithm + "\n" + (critic.empty() ? "" : "[critic]\n" + critic + "\n");
}

std::string ProblemsOf(const std::string& text) {
  try {
    ParseRecipe(text, "r.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(PpoConfigTest, KlStandsInTheRewardUnlessTheRecipeSaysOtherwise) {
  const Loaded ppo = ParseRecipe(Recipe("name = \"ppo\"\nbeta = 0.05"), "r.toml");
  EXPECT_EQ(ppo.config.algorithm.kl_estimator, KlEstimator::kK1);
  EXPECT_EQ(ppo.config.algorithm.kl_placement, KlPlacement::kReward);
  EXPECT_EQ(ppo.origins.at("algorithm.kl_estimator"), "default of ppo");
  EXPECT_EQ(ParseRecipe(Recipe("name = \"grpo\""), "r.toml").config.algorithm.kl_placement,
            KlPlacement::kLoss);
  const Loaded said = ParseRecipe(
      Recipe("name = \"ppo\"\nkl_estimator = \"k3\"\nkl_placement = \"loss\""), "r.toml");
  EXPECT_EQ(said.config.algorithm.kl_estimator, KlEstimator::kK3);
  EXPECT_EQ(said.config.algorithm.kl_placement, KlPlacement::kLoss);
  // The resolved recipe is complete: it reads back to the same values.
  const Loaded again = ParseRecipe(ToToml(ppo.config), "again.toml");
  EXPECT_EQ(ToToml(again.config), ToToml(ppo.config));
}

// COMPATIBILITY.md section 3.
TEST(PpoConfigTest, UsualValuesAreThoseThatPeopleExpect) {
  const Loaded loaded = ParseRecipe(Recipe("name = \"ppo\""), "r.toml");
  const AlgorithmConfig& a = loaded.config.algorithm;
  EXPECT_EQ(a.clip_low, 0.2);
  EXPECT_EQ(a.clip_high, 0.2);
  EXPECT_EQ(a.dual_clip, 3.0);
  EXPECT_EQ(a.kl_coef, 0.05);
  EXPECT_EQ(a.entropy_coef, 0.01);
  EXPECT_EQ(a.reward_clip, 10);
  EXPECT_EQ(a.gamma, 1);
  EXPECT_EQ(a.lam, 0.95);
  EXPECT_TRUE(a.whiten_advantages);
  EXPECT_EQ(loaded.origins.at("algorithm.dual_clip"), "default of ppo");
  EXPECT_EQ(loaded.config.critic.learning_rate, 1e-5);
  EXPECT_EQ(loaded.config.critic.value_clip, 0.2);
  EXPECT_EQ(loaded.config.critic.vf_coef, 0.5);
  EXPECT_EQ(loaded.config.optimizer.learning_rate, 1e-6);
  EXPECT_EQ(loaded.config.optimizer.grad_clip, 1.0);
  const AlgorithmConfig grpo = ParseRecipe(Recipe("name = \"grpo\""), "r.toml").config.algorithm;
  EXPECT_EQ(grpo.dual_clip, 0);
  EXPECT_EQ(grpo.entropy_coef, 0);
  EXPECT_EQ(grpo.kl_coef, 0);
}

TEST(PpoConfigTest, NamesOfOtherSystems) {
  const Config c =
      ParseRecipe(
          Recipe("name = \"ppo\"\ninit_kl_coef = 0.2\nkl_ctrl = \"adaptive\"\ntarget_kl = 0.1\n"
                 "horizon = 500\nppo_epochs = 4\ngamma = 0.99\nlam = 0.9\ncliprange_reward = 10",
                 "cliprange_value = 0.4\nlr = 2e-5\ncritic_warmup = 3\nvf_coef = 0.1\nmode = "
                 "\"shared\""),
          "r.toml")
          .config;
  EXPECT_EQ(c.algorithm.kl_coef, 0.2);
  EXPECT_EQ(c.algorithm.kl_target, 0.1);
  EXPECT_EQ(c.algorithm.kl_horizon, 500);
  EXPECT_EQ(c.algorithm.epochs, 4);
  EXPECT_EQ(c.algorithm.reward_clip, 10);
  EXPECT_EQ(c.critic.value_clip, 0.4);
  EXPECT_EQ(c.critic.learning_rate, 2e-5);
  EXPECT_EQ(c.critic.warmup_steps, 3);
  EXPECT_EQ(c.critic.vf_coef, 0.1);
}

TEST(PpoConfigTest, ContradictionsAreSentences) {
  const std::pair<std::string, const char*> cases[] = {
      {Recipe("name = \"ppo\"\nkl_coef = 0.1\nkl_controller = \"adaptive\""),
       "needs algorithm.kl_target > 0"},
      {Recipe("name = \"ppo\"\nkl_coef = 0\nkl_controller = \"adaptive\"\nkl_target = 0.1"),
       "needs algorithm.kl_coef > 0"},
      {Recipe("name = \"ppo\"\nkl_coef = 0.1\nkl_target = 0.1"), "only looked at under"},
      {Recipe("name = \"grpo\"\nkl_coef = 0.1\nkl_controller = \"adaptive\"\nkl_target = 0.1"),
       "is an option of"},
      {Recipe("name = \"ppo\"\nkl_controller = \"pid\""),
       "algorithm.kl_controller = \"pid\" is not known"},
      {Recipe("name = \"ppo\"\nlam = 1.5"), "algorithm.lam = 1.5 has to be in [0, 1]"},
      {Recipe("name = \"ppo\"\ngamma = 0"), "algorithm.gamma"},
      {Recipe("name = \"ppo\"\nreward_clip = -1"), "algorithm.reward_clip"},
      {Recipe("name = \"ppo\"", "mode = \"borrowed\""), "critic.mode = \"borrowed\" is not known"},
      {Recipe("name = \"ppo\"", "mode = \"shared\"\npath = \"rm\""), "keep one of them"},
      {Recipe("name = \"grpo\"", "path = \"rm\""), "has a critic"},
      {Recipe("name = \"ppo\"", "learning_rate = 0"),
       "critic.learning_rate = 0.0 has to be positive"},
  };
  for (const auto& [recipe, expected] : cases) {
    const std::string problems = ProblemsOf(recipe);
    EXPECT_NE(problems.find(expected), std::string::npos) << recipe << "\nsaid\n" << problems;
  }
  EXPECT_EQ(ProblemsOf(Recipe(
                "name = \"ppo\"\nkl_coef = 0.1\nkl_controller = \"adaptive\"\nkl_target = 0.1")),
            "");
}

}  // namespace
}  // namespace plumb::configs
