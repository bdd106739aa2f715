// Recipes of algorithm.name = "sft": what they need, and what contradicts them.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"
#include "configs/resume.h"

namespace plumb::configs {
namespace {

constexpr char kSft[] = R"([data]
train = "arithmetic"
[algorithm]
name = "sft"
)";

std::string ProblemsOf(const std::string& text, const std::vector<std::string>& overrides) {
  try {
    ParseRecipe(text, "r.toml", overrides);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(SftConfigTest, NeedsNeitherRewardsNorRollouts) {
  const Config config = ParseRecipe(kSft, "r.toml").config;
  EXPECT_TRUE(IsOffline(config));
  EXPECT_EQ(config.sft.heldout, -1);
  const std::string text = ToToml(config);  // names every option, and is taken again
  EXPECT_EQ(ToToml(ParseRecipe(text, "again.toml").config), text);
  EXPECT_EQ(ProblemsOf(kSft, {"policy.adapter=lora", "model.path=m", "sft.max_tokens=64"}), "");
}

// TRL's names, of its trainers for demonstrations then and now, and LLaMA-Factory's.
TEST(SftConfigTest, RowsAreBoundedByEachNameOfTheirLength) {
  for (const char* name : {"max_length", "max_seq_length", "cutoff_len"}) {
    const Loaded loaded = ParseRecipe(kSft, "r.toml", {std::string("sft.") + name + "=64"});
    EXPECT_EQ(loaded.config.sft.max_tokens, 64) << name;
  }
  EXPECT_NE(
      ProblemsOf(kSft, {"max_length=64"})
          .find("unknown key 'max_length': here it is sft.max_tokens or preference.max_tokens"),
      std::string::npos)
      << ProblemsOf(kSft, {"max_length=64"});
}

// Where several given options stand in a sentence, the one that it is about.
TEST(SftConfigTest, TheOptionThatTheSentenceBeginsWithIsBlamed) {
  EXPECT_EQ(ProblemsOf(kSft, {"sft.steps=1", "run.steps=1"}).find("--set sft.steps=1: sft.steps "),
            ProblemsOf(kSft, {"sft.steps=1"}).find("--set sft.steps=1: sft.steps "));
  EXPECT_NE(ProblemsOf(kSft, {"sft.steps=1", "run.steps=1"}).find("--set sft.steps=1: sft.steps "),
            std::string::npos);
}

TEST(SftConfigTest, ContradictionsAreSentences) {
  for (const auto& [set, sentence] : {
           std::pair("sft.steps=5",
                     "sft.steps is a warm start before rollouts: algorithm.name = "
                     "\"sft\" has none, leave it at 0; it makes run.steps (--steps) updates."),
           std::pair("sft.learning_rate=2e-5",
                     "algorithm.name = \"sft\" goes by "
                     "optimizer.learning_rate."),
           std::pair("sft.patience=3", "goes by run.steps."),
           std::pair("sft.data=rows.jsonl", "goes by data.train."),
           std::pair("sft.eval_every=5", "goes by eval.every."),
           std::pair("data.eval=arithmetic", "holds back sft.heldout rows of data.train."),
           std::pair("algorithm.kl_coef=0.1", "has no reference."),
           std::pair("run.roles=processes", "needs actors"),
           std::pair("reward.parts=[{ kind = \"answer\" }]", "[[reward.parts]] score rollouts"),
           std::pair("rollout.kv_type=int8",
                     "rollout.kv_type is of generation: algorithm.name = \"sft\" has none"),
           std::pair("rollout.replay_experts=true", "rollout.replay_experts is of generation"),
           std::pair("rollout.kv_after_update=recompute", "kv_after_update is of generation"),
           std::pair("sft.heldout=-2", "sft.heldout = -2 has to be at least -1."),
           std::pair("replay.groups_per_step=1", "sft does not take them"),
           std::pair("sft.curriculum=[\"code\"]", "write \"pattern=number\""),
           std::pair("sft.curriculum=[\"code=1.5\"]", "lets \"code\" end at 1.5 of the steps"),
           std::pair("sft.curriculum=[\"text=0.5\", \"code=0.5\"]", "above the one before"),
       }) {
    const std::string problems = ProblemsOf(kSft, {set});
    EXPECT_NE(problems.find(sentence), std::string::npos) << set << ": " << problems;
    EXPECT_EQ(problems.find('\n'), std::string::npos) << "one sentence says it: " << problems;
  }
}

TEST(SftConfigTest, ABarNeedsHeldOutRows) {
  EXPECT_EQ(ProblemsOf(kSft, {"eval.bar=0.5"}), "");
  EXPECT_NE(ProblemsOf(kSft, {"eval.bar=0.5", "sft.heldout=0"}).find("raise sft.heldout"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(kSft, {"algorithm.name=dpo", "eval.bar=0.5", "preference.heldout=0",
                              "data.train=pairs.jsonl"})
                .find("raise preference.heldout"),
            std::string::npos);
}

TEST(SftConfigTest, RewardModelsLabelPairsOfDpoAndNothingElseDoes) {
  const std::vector<std::string> dpo = {"algorithm.name=dpo", "data.train=pairs.jsonl"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), dpo.begin(), dpo.end());
    return ProblemsOf(kSft, more);
  };
  EXPECT_EQ(with({"reward.parts=[{ kind = \"reward_model\", path = \"rm\" }]"}), "");
  EXPECT_NE(with({"reward.parts=[{ kind = \"answer\" }]"}).find("what labels the pairs"),
            std::string::npos);
  EXPECT_NE(with({"reward.parts=[{ kind = \"reward_model\" }]", "preference.loss=kto"})
                .find("what labels the pairs"),
            std::string::npos);
  EXPECT_NE(with({"sft.curriculum=[\"code=1\"]"}).find("are options of algorithm.name = \"sft\""),
            std::string::npos);
}

TEST(SftConfigTest, ARecipeOfStagesIsCheckedWithThem) {
  EXPECT_EQ(ProblemsOf("[run]\nstages = [\"a.toml\"]\n", {}), "");
  EXPECT_NE(
      ProblemsOf("[run]\nstages = [\"a.toml\"]\nschedule = \"async\"\n", {}).find("max_staleness"),
      std::string::npos);
  EXPECT_EQ(ResumeRuleOf("run.stages").what, OnResume::kFixed);
  EXPECT_EQ(ResumeRuleOf("sft.curriculum").what, OnResume::kFixed);
  EXPECT_EQ(ResumeRuleOf("sft.syntax_penalty").what, OnResume::kMayChange);
}

TEST(SftConfigTest, NothingIsSaidOfCheckpointsThatAreNotMade) {
  EXPECT_EQ(ProblemsOf(kSft, {"checkpoint.optimizer_every=2"}), "");
  EXPECT_EQ(ProblemsOf(kSft, {"run.checkpoint_every=0"}), "");
  const std::string problems =
      ProblemsOf(kSft, {"checkpoint.optimizer_every=2", "run.checkpoint_every=0"});
  EXPECT_NE(problems.find("checkpoint.optimizer_every is about the checkpoints between two steps"),
            std::string::npos)
      << problems;
}

TEST(SftConfigTest, ItsOptionsAreNoneOfAWarmStart) {
  const std::string grpo = "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n";
  EXPECT_NE(ProblemsOf(grpo, {"sft.heldout=10"}).find("are options of algorithm.name = \"sft\""),
            std::string::npos);
  EXPECT_EQ(ProblemsOf(grpo, {"sft.learning_rate=2e-5", "sft.steps=3"}), "");
}

TEST(SftConfigTest, WhatWouldBePassedOverInSilenceIsRefused) {
  const std::string dpo = "[data]\ntrain = \"pairs\"\n[algorithm]\nname = \"dpo\"\n";
  EXPECT_EQ(ProblemsOf(dpo, {}), "");
  EXPECT_NE(ProblemsOf(dpo, {"data.system_prompt=Be brief."})
                .find("takes its rows as they are: write them into the rows."),
            std::string::npos);
  EXPECT_NE(ProblemsOf(dpo, {"reward.parts=[{ kind = \"answer\" }]"}).find("take them out"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(kSft, {"data.system_prompt=Be brief.", "data.chat_template=false"})
                .find("which the chat template writes"),
            std::string::npos);
  EXPECT_EQ(ProblemsOf(kSft, {"data.system_prompt=Be brief."}), "");
}

}  // namespace
}  // namespace plumb::configs
