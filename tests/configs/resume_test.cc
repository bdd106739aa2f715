#include "configs/resume.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/base/error.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] = R"([data]
train = "arithmetic"
eval = "arithmetic"
[rollout]
max_new_tokens = 12
[[reward.parts]]
name = "correct"
kind = "answer"
[[reward.parts]]
name = "short"
kind = "length"
target_tokens = 1
max_tokens = 12
)";

Config Recipe(const std::vector<std::string>& overrides = {}) {
  return ParseRecipe(kRecipe, "recipe.toml", overrides).config;
}

RecipeDifference After(const std::vector<std::string>& overrides,
                       const std::vector<std::string>& before = {}) {
  return CompareForResume(ToToml(Recipe(before)), Recipe(overrides), true);
}

// The keys of the resolved recipe are all there are. An option that is added has to be given a line
// of the table.
TEST(ResumeTest, EveryOptionHasOneRule) {
  std::set<std::string> options;
  std::string section;
  std::istringstream in(ToToml(Recipe()));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("[[")) section = line.substr(2, line.find(']') - 2);
    else if (line.starts_with("[")) section = line.substr(1, line.find(']') - 1);
    else if (const size_t equals = line.find(" = "); equals != std::string::npos)
      options.insert(section + "." + line.substr(0, equals));
  }
  ASSERT_GT(options.size(), 100u);
  std::vector<std::string> ruled = OptionsWithResumeRule();
  std::sort(ruled.begin(), ruled.end());
  EXPECT_EQ(std::adjacent_find(ruled.begin(), ruled.end()), ruled.end())
      << "an option stands in the table twice";
  EXPECT_EQ(std::set<std::string>(ruled.begin(), ruled.end()), options)
      << "configs/resume.cc: may the new option change when a run is resumed?";
  EXPECT_EQ(ResumeRuleOf("run.stepps").what, OnResume::kFixed);
}

TEST(ResumeTest, NothingChangedIsNoChange) {
  const RecipeDifference same = After({"run.out=\"elsewhere\""});
  EXPECT_TRUE(same.changed.empty() && same.refused.empty());
}

// One of each kind: rates, memory, time-outs, workers, evaluation, gate, retries, replay bounds,
// checkpoints, metrics, roles, loss.
TEST(ResumeTest, WhatWasSampledDoesNotHangOn) {
  const std::vector<std::string> changes = {"optimizer.learning_rate=1e-3",
                                            "optimizer.lr_schedule=\"cosine\"",
                                            "optimizer.grad_clip=0",
                                            "optimizer.micro_batch_tokens=512",
                                            "rollout.kv_budget_mb=64",
                                            "rollout.max_batch=16",
                                            "run.threads=2",
                                            "run.device=\"cuda\"",
                                            "run.stall_seconds=10",
                                            "run.checkpoint_every=1",
                                            "run.steps=7",
                                            "run.roles=\"processes\"",
                                            "run.actors=2",
                                            "run.reward_workers=3",
                                            "eval.every=2",
                                            "eval.bar=0.1",
                                            "reward.retries=3",
                                            "reward.on_failure=\"requeue\"",
                                            "reward.parts.1.timeout_s=60",
                                            "reward.parts.0.workers=2",
                                            "algorithm.logprob_gate=0.2",
                                            "algorithm.clip_high=0.3",
                                            "replay.keep_steps=5",
                                            "replay.max_groups=9",
                                            "metrics.tensorboard=false"};
  for (const std::string& change : changes) {
    const std::string key = change.substr(0, change.find('='));
    const RecipeDifference difference = After({change});
    EXPECT_TRUE(difference.refused.empty()) << change;
    ASSERT_EQ(difference.changed.size(), 1u) << change;
    EXPECT_EQ(difference.changed[0].key, key);
  }
  const RecipeDifference all = After(changes);
  EXPECT_EQ(all.changed.size(), changes.size());
  EXPECT_TRUE(all.refused.empty());
  const RecipeDifference one =
      After({"optimizer.learning_rate=1e-3"}, {"optimizer.learning_rate=0.5"});
  ASSERT_EQ(one.changed.size(), 1u);
  EXPECT_EQ(one.changed[0].before, "0.5");
  EXPECT_EQ(one.changed[0].now, "0.001");
}

TEST(ResumeTest, WhatItHangsOnIsRefusedWithTheReason) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"run.seed=9", "draw"},

      {"model.hidden=64", "shape"},
      {"model.dtype=\"bfloat16\"", "precision"},
      {"model.path=\"elsewhere\"", "checkpoint"},
      {"data.system_prompt=\"Be brief.\"", "data never changes"},
      {"data.shuffle=false", "rows"},
      {"sft.steps=5", "warm start"},
      {"rollout.prompts_per_step=16", "numbered"},
      {"rollout.samples_per_prompt=4", "size"},
      {"rollout.temperature=0.5", "drawn"},
      {"rollout.top_p=0.9", "drawn"},
      {"rollout.max_new_tokens=13", "drawn"},
      {"reward.parts.0.weight=2", "rewards"},
      {"reward.parts.1.target_tokens=2", "rewards"},
      {"algorithm.name=\"rloo\"", "state"},
      {"critic.mode=\"shared\"", "critic"},
      {"preference.batch=4", "rows"},
      {"replay.prompts=\"uniform\"", "which prompt"}};
  for (const auto& [change, why] : refused) {
    const std::string key = change.substr(0, change.find('='));
    const RecipeDifference difference = After({change});
    const auto found = std::find_if(difference.refused.begin(), difference.refused.end(),
                                    [&](const OptionChange& c) { return c.key == key; });
    ASSERT_NE(found, difference.refused.end()) << change;
    EXPECT_NE(found->why.find(why), std::string::npos) << key << ": " << found->why;
  }
}

// It can be given another rate until it is over, not other data: what it has been shown is counted.
TEST(ResumeTest, AnUnfinishedWarmStartMayChangeItsRates) {
  const std::string stored = ToToml(Recipe());
  const Config rates = Recipe({"sft.learning_rate=1e-4", "sft.steps=7"});
  const Config data = Recipe({"sft.batch=7"});
  EXPECT_EQ(CompareForResume(stored, rates, false).changed.size(), 2u);
  EXPECT_EQ(CompareForResume(stored, rates, true).refused.size(), 2u);
  for (const bool over : {false, true})
    EXPECT_EQ(CompareForResume(stored, data, over).refused.size(), 1u);
}

TEST(ResumeTest, TheScheduleIsFixedAndItsBoundIsNot) {
  const std::vector<std::string> async = {"run.schedule=\"async\"", "run.max_staleness=2"};
  const RecipeDifference other = After(async);
  ASSERT_EQ(other.refused.size(), 1u);
  EXPECT_EQ(other.refused[0].key, "run.schedule");
  EXPECT_EQ(After({"run.schedule=\"async\"", "run.max_staleness=1"}, async).changed.size(), 1u);
}

TEST(ResumeTest, AKlTermNeedsTheReferenceThatTheRunKept) {
  EXPECT_EQ(After({"algorithm.kl_coef=0.1"}).refused.size(), 1u) << "none was kept";
  EXPECT_EQ(After({"algorithm.kl_coef=0.1"}, {"algorithm.kl_coef=0.2"}).changed.size(), 1u);
  EXPECT_EQ(After({"algorithm.kl_coef=0"}, {"algorithm.kl_coef=0.2"}).changed.size(), 1u);
  const std::vector<std::string> adaptive = {
      "algorithm.name=\"ppo\"", "algorithm.kl_controller=\"adaptive\"", "algorithm.kl_target=0.1"};
  std::vector<std::string> now = adaptive;
  now.emplace_back("algorithm.kl_coef=0.2");
  const RecipeDifference moved = After(now, adaptive);
  ASSERT_EQ(moved.refused.size(), 1u);
  EXPECT_NE(moved.refused[0].why.find("controller"), std::string::npos);
}

// Replay may go by other bounds, but not back to groups that are gone.
TEST(ResumeTest, ReplayReachesAsFarBackAsTheRunKeepsGroups) {
  const std::vector<std::string> mixed = {"replay.groups_per_step=4", "replay.max_age_steps=3"};
  EXPECT_EQ(After({"replay.groups_per_step=4"}).refused.size(), 1u) << "nothing is kept for it";
  EXPECT_EQ(After({"replay.groups_per_step=9", "replay.max_age_steps=2"}, mixed).changed.size(),
            2u);
  const RecipeDifference further =
      After({"replay.groups_per_step=4", "replay.max_age_steps=5"}, mixed);
  ASSERT_EQ(further.refused.size(), 1u);
  EXPECT_EQ(further.refused[0].key, "replay.max_age_steps");
  EXPECT_NE(further.refused[0].why.find("5 steps back, and the run keeps 3"), std::string::npos);
  for (const std::string keep : {"replay.keep_steps=5", "replay.keep_steps=-1"}) {
    std::vector<std::string> before = mixed,
                             now = {"replay.groups_per_step=4", "replay.max_age_steps=5", keep};
    before.push_back(keep);
    EXPECT_EQ(After(now, before).changed.size(), 1u) << keep;
  }
}

TEST(ResumeTest, AnotherNumberOfPartsIsSaidOnce) {
  Config now = Recipe();
  now.reward.parts.pop_back();
  const RecipeDifference difference = CompareForResume(ToToml(Recipe()), now, true);
  ASSERT_EQ(difference.refused.size(), 1u);
  EXPECT_EQ(difference.refused[0].key, "reward.parts");
  EXPECT_EQ(difference.refused[0].before, "2 parts");
}

// A recipe that an earlier version resolved lacks the options that came later: the run had their
// defaults.
TEST(ResumeTest, AnOptionThatTheStoredRecipeLacksHadItsDefault) {
  std::string stored = ToToml(Recipe());
  for (const std::string line :
       {"logprob_gate = 0.05\n", "temperature = 1.0\n", "memory_mb = 2048\n"}) {
    const size_t at = stored.find(line);
    ASSERT_NE(at, std::string::npos) << line;
    stored.erase(at, line.size());
  }
  EXPECT_TRUE(CompareForResume(stored, Recipe(), true).changed.empty());
  EXPECT_TRUE(CompareForResume(stored, Recipe(), true).refused.empty());
  const RecipeDifference difference = CompareForResume(
      stored, Recipe({"algorithm.logprob_gate=0.2", "rollout.temperature=0.7"}), true);
  ASSERT_EQ(difference.changed.size(), 1u);
  EXPECT_EQ(difference.changed[0].before, "0.05");
  ASSERT_EQ(difference.refused.size(), 1u);
  EXPECT_EQ(difference.refused[0].key, "rollout.temperature");
}

}  // namespace
}  // namespace plumb::configs
