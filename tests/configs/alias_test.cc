// Names that people bring from TRL, verl, OpenRLHF and others: each is taken in a recipe and by
// --set, and shown as ours.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"
#include "configs/recipe_text.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] =
    "[data]\ntrain = \"arithmetic\"\n[rollout]\nprompts_per_step = 32\n[[reward.parts]]\nkind = "
    "\"answer\"\n"
    "[algorithm]\nname = \"ppo\"\n";

struct Alias {
  const char *table, *name, *ours, *value;
};

// COMPATIBILITY.md section 3, and what goes with it.
constexpr Alias kAliases[] = {
    {"rollout", "num_generations", "rollout.samples_per_prompt", "4"},
    {"rollout", "n", "rollout.samples_per_prompt", "4"},
    {"rollout", "n_samples_per_prompt", "rollout.samples_per_prompt", "4"},
    {"rollout", "max_response_length", "rollout.max_new_tokens", "20"},
    {"rollout", "max_completion_length", "rollout.max_new_tokens", "20"},
    {"rollout", "temperature", "rollout.temperature", "0.5"},
    {"rollout", "top_p", "rollout.top_p", "0.5"},
    {"rollout", "top_k", "rollout.top_k", "7"},
    {"rollout", "min_p", "rollout.min_p", "0.25"},
    {"data", "max_prompt_length", "data.max_prompt_tokens", "99"},
    {"algorithm", "beta", "algorithm.kl_coef", "0.5"},
    {"algorithm", "kl_coef", "algorithm.kl_coef", "0.5"},
    {"algorithm", "init_kl_coef", "algorithm.kl_coef", "0.5"},
    {"algorithm", "epsilon", "algorithm.clip_low", "0.125"},
    {"algorithm", "clip_ratio_low", "algorithm.clip_low", "0.125"},
    {"algorithm", "epsilon_high", "algorithm.clip_high", "0.75"},
    {"algorithm", "clip_ratio_high", "algorithm.clip_high", "0.75"},
    {"algorithm", "ppo_epochs", "algorithm.epochs", "3"},
    {"algorithm", "num_iterations", "algorithm.epochs", "3"},
    {"algorithm", "num_mini_batches", "algorithm.minibatches", "4"},
    {"algorithm", "gamma", "algorithm.gamma", "0.5"},
    {"algorithm", "lam", "algorithm.lam", "0.5"},
    {"critic", "cliprange_value", "critic.value_clip", "0.5"},
};

// The line of `plumb config show` that is about this option.
std::string Line(const Loaded& loaded, const std::string& key) {
  const std::string text = "\n" + List(loaded, {.width = 1000});
  const size_t at = text.find("\n" + key + " ");
  return at == std::string::npos ? "" : text.substr(at + 1, text.find('\n', at + 1) - at - 1);
}

std::string ProblemsOf(const std::vector<std::string>& overrides) {
  try {
    ParseRecipe(kRecipe, "r.toml", overrides);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(AliasTest, EveryNameWorksInARecipeAndOnTheCommandLineAndIsShownAsOurs) {
  for (const Alias& a : kAliases) {
    const std::string set = std::string(a.table) + "." + a.name + "=" + a.value;
    const Loaded by_set = ParseRecipe(kRecipe, "r.toml", {set});
    EXPECT_EQ(by_set.origins.at(a.ours), "--set") << set;
    const std::string line = Line(by_set, a.ours);
    EXPECT_NE((line + " ").find(std::string(" ") + a.value + " "), std::string::npos)
        << set << ": " << line;

    std::string text = kRecipe;
    const std::string head = std::string("[") + a.table + "]\n",
                      entry = std::string(a.name) + " = " + a.value + "\n";
    const size_t at = text.find(head);
    text = at == std::string::npos ? text + head + entry : text.insert(at + head.size(), entry);
    EXPECT_EQ(ToToml(ParseRecipe(text, "r.toml").config), ToToml(by_set.config)) << set;
  }
}

TEST(AliasTest, ANameThatBoundsBothSidesBoundsBoth) {
  for (const char* name : {"epsilon", "clip_ratio", "cliprange", "eps_clip"}) {
    const std::string set = std::string("algorithm.") + name + "=0.125";
    const Loaded loaded = ParseRecipe(kRecipe, "r.toml", {set});
    EXPECT_EQ(loaded.config.algorithm.clip_low, 0.125) << name;
    EXPECT_EQ(loaded.config.algorithm.clip_high, 0.125) << name;
    EXPECT_EQ(loaded.origins.at("algorithm.clip_high"), std::string("--set, ") + name);
    EXPECT_EQ(ParseRecipe(kRecipe, "r.toml", {set, "algorithm.epsilon_high=0.28"})
                  .config.algorithm.clip_high,
              0.28)
        << name;
  }
  EXPECT_EQ(
      ParseRecipe(kRecipe, "r.toml", {"algorithm.clip_ratio_low=0.125"}).config.algorithm.clip_high,
      0.2);
  // DAPO's upper bound is a usual value of the method, not something said.
  EXPECT_EQ(ParseRecipe(kRecipe, "r.toml", {"algorithm.name=dapo", "algorithm.epsilon=0.1"})
                .config.algorithm.clip_high,
            0.1);
}

TEST(AliasTest, AMinibatchCountedInPromptsIsTurnedIntoANumberOfUpdates) {
  const Loaded loaded = ParseRecipe(kRecipe, "r.toml", {"algorithm.ppo_mini_batch_size=8"});
  EXPECT_EQ(loaded.config.algorithm.minibatches, 4) << "32 prompts in parts of 8";
  EXPECT_EQ(loaded.origins.at("algorithm.minibatches"), "--set, ppo_mini_batch_size = 8");
  EXPECT_EQ(ParseRecipe(ToToml(loaded.config), "again.toml").config.algorithm.minibatches, 4)
      << "converted once";
  for (const char* size : {"7", "0", "64", "-8"}) {
    const std::string problems = ProblemsOf({std::string("algorithm.ppo_mini_batch_size=") + size});
    EXPECT_NE(problems.find("has to divide rollout.prompts_per_step = 32"), std::string::npos)
        << size << ": " << problems;
  }
}

TEST(AliasTest, ARightNameInTheWrongTableIsToldItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"num_generations=4", "here it is rollout.samples_per_prompt"},
      {"algorithm.num_generations=4", "here it is rollout.samples_per_prompt"},
      {"algorithm.cliprange_value=0.1", "here it is critic.value_clip"},
      {"beta=0.1", "here it is algorithm.kl_coef or distill.beta or preference.beta"},
      {"algorithm.nothing_like_it=1", "known here: name, "},
      {"reward.parts.0.file=r.py", "a reward part's file is its path"},
      {"max_completion_lenght=9",
       "did you mean 'rollout.max_new_tokens' ('max_completion_length' elsewhere)?"},
      {"rollout.learning_rat=1", "'optimizer.learning_rate' or 'sft.learning_rate'?"},
      {"per_device_train_batch_size=4", "an update sees rollout.prompts_per_step"},
      {"lora.rank=8", "policy.adapter = \"lora\""},
      {"model.lora_rank=8", "here it is policy.adapter = \"lora\" with policy.rank and "},
      {"model.lora_alpha=8", "without an adapter all weights train"},
      {"lora_r=8", "here it is policy.adapter = \"lora\" with policy.rank and policy.alpha; "},
      {"trainer.logger=wandb", "metrics.follow (wandb, "},
      {"reward.parts.other.kind=python", "numbers begin at 0, the recipe has 1 part"},
      {"bf16=true", "model.dtype = \"bfloat16\""},
      {"experts.top_k=2", "here it is experts.per_token"},
      {"data.map=answer", "with --set: data.map.name=value"},
  };
  for (const auto& [set, said] : cases) {
    EXPECT_NE(ProblemsOf({set}).find(said), std::string::npos) << set << ": " << ProblemsOf({set});
  }
  for (const char* far : {"nothing_like_any=1", "algorithm.nothing_like_it=1",
                          "reward.parts.0.file=r.py", "data.hub=1"})
    EXPECT_EQ(ProblemsOf({far}).find("did you mean"), std::string::npos) << ProblemsOf({far});
}

}  // namespace
}  // namespace plumb::configs
