// configs/foreign/foreign_paths.h: keys of other systems' tables stand where they are here.
#include "configs/foreign/foreign_paths.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"
#include "configs/foreign/toml_table.h"
#include "configs/recipe_text.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] =
    "[data]\ntrain = \"arithmetic\"\n[rollout]\nprompts_per_step = 32\n[[reward.parts]]\nkind = "
    "\"answer\"\n[algorithm]\nname = \"ppo\"\n";

std::string ProblemsOf(const std::vector<std::string>& overrides, const std::string& more = "") {
  try {
    ParseRecipe(kRecipe + more, "r.toml", overrides);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ForeignPathsTest, AKeyOfTheSameMeaningIsTaken) {
  const std::pair<const char*, const char*> cases[] = {
      {"actor_rollout_ref.actor.optim.lr=2e-6", "optimizer.learning_rate=2e-6"},
      {"actor_rollout_ref.actor.grad_clip=0.5", "optimizer.grad_clip=0.5"},
      {"actor_rollout_ref.actor.ppo_mini_batch_size=8", "algorithm.ppo_mini_batch_size=8"},
      {"actor_rollout_ref.actor.clip_ratio=0.3", "algorithm.clip_ratio=0.3"},
      {"actor_rollout_ref.actor.loss_agg_mode=token", "algorithm.aggregation=token"},
      {"actor_rollout_ref.rollout.n=4", "rollout.samples_per_prompt=4"},
      {"actor_rollout_ref.rollout.temperature=0.5", "rollout.temperature=0.5"},
      {"critic.optim.lr=3e-5", "critic.learning_rate=3e-5"},
      {"optimizer.optim.lr=2e-6", "optimizer.learning_rate=2e-6"},
      {"data.prompt_key=question", "data.map.prompt=question"},
      {"data.train_batch_size=16", "rollout.prompts_per_step=16"},
      {"algorithm.kl_ctrl.kl_coef=0.25", "algorithm.kl_coef=0.25"},
      {"trainer.total_training_steps=7", "run.steps=7"},
      {"trainer.save_freq=-1", "run.checkpoint_every=0"},
      {"trainer.test_freq=3", "eval.every=3"},
      {"trainer.default_local_dir=runs/x", "run.out=runs/x"},
      {"run.output_dir=runs/x", "run.out=runs/x"},
      {"algorithm.delta=4", "algorithm.dual_clip=4"},
      {"algorithm.whiten_advantages=False", "algorithm.whiten_advantages=false"},
  };
  for (const auto& [there, here] : cases) {
    EXPECT_EQ(ProblemsOf({there}), "");
    if (!ProblemsOf({there}).empty()) continue;
    EXPECT_EQ(ToToml(ParseRecipe(kRecipe, "r.toml", {there}).config),
              ToToml(ParseRecipe(kRecipe, "r.toml", {here}).config))
        << there;
  }
}

TEST(ForeignPathsTest, InARecipeItsLineIsTheOrigin) {
  const Loaded loaded = ParseRecipe(
      std::string(kRecipe) + "[actor_rollout_ref.actor.optim]\nlr = 3e-6\n", "r.toml", {});
  EXPECT_EQ(loaded.config.optimizer.learning_rate, 3e-6);
  EXPECT_EQ(loaded.origins.at("optimizer.learning_rate"), "r.toml:10");
}

TEST(ForeignPathsTest, AKeyOfAnotherMeaningNamesTheOption) {
  const std::pair<const char*, const char*> cases[] = {
      {"actor_rollout_ref.rollout.gpu_memory_utilization=0.5", "rollout.kv_budget_mb"},
      {"actor_rollout_ref.rollout.name=vllm", "Plumb's own engine"},
      {"actor_rollout_ref.model.lora_rank=8", "policy.adapter = \"lora\""},
      {"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4", "optimizer.micro_batch_tokens"},
      {"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4", "the policy's start"},
      {"trainer.n_gpus_per_node=8", "run.device"},
      {"trainer.total_epochs=15", "run.steps"},
      {"trainer.experiment_name=mine", "run.out"},
      {"custom_reward_function.path=r.py", "kind = \"python\""},
      {"reward.reward_weights=[1.0, 0.5]", "[[reward.parts]], with its weight"},
      {"model.attn_implementation=sdpa", "attention is Plumb's own"},
      {"rollout.repetition_penalty=1.1", "rollout.temperature"},
      {"optimizer.warmup_steps=10", "optimizer.warmup_fraction"},
      {"algorithm.delta=1.1", "above 1 + epsilon_high"},
      {"actor_rollout_ref.actor.no_such_thing=1",
       "unknown key 'actor_rollout_ref.actor.no_such_thing'"},
      {"trainer.save_freqq=1", "unknown key 'trainer.save_freqq'"},
  };
  for (const auto& [set, said] : cases) {
    const std::string problems = ProblemsOf({set});
    EXPECT_NE(problems.find(said), std::string::npos) << set << ": " << problems;
    EXPECT_TRUE(problems.starts_with("--set")) << problems;
  }
}

TEST(ForeignPathsTest, TwoNamesOfOneOptionAreTwoMentions) {
  const std::string problems =
      ProblemsOf({}, "[optimizer]\nlearning_rate = 1e-6\noptim.lr = 2e-6\n");
  EXPECT_NE(problems.find("r.toml:11: optimizer.optim.lr is optimizer.learning_rate here, which is "
                          "given, too: keep one of them"),
            std::string::npos)
      << problems;
}

TEST(ForeignPathsTest, TablesAreThoseOfTheRoom) {
  toml::table root = toml::parse("[trainer]\nsave_freq = 5\n[data]\nprompt_key = \"q\"\n");
  ForeignMentions mentions;
  std::vector<std::string> problems;
  MoveForeignPaths(root,
                   {.place = [](const toml::source_region&) { return "here"; },
                    .unknown = [](const std::string&, const std::string&) {}},
                   mentions, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_FALSE(root.contains("trainer"));
  EXPECT_EQ(root["run"]["save_freq"].value<int64_t>(), 5);
  EXPECT_EQ(root["data"]["map"]["prompt"].value<std::string>(), "q");
}

TEST(ForeignPathsTest, OneStringInPlaceOfAListIsShownAsAList) {
  const std::string problems = ProblemsOf({"policy.targets=q_proj"});
  EXPECT_NE(problems.find("'q_proj'"), std::string::npos) << problems;
  EXPECT_NE(problems.find("a list of strings, ["), std::string::npos) << problems;
}

}  // namespace
}  // namespace plumb::configs
