// configs/foreign/foreign_values.h: values of TRL and verl mean here what they mean there.
#include "configs/foreign/foreign_values.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"
#include "configs/recipe_text.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] =
    "[data]\ntrain = \"arithmetic\"\n[rollout]\nsamples_per_prompt = 6\n[[reward.parts]]\nkind = "
    "\"answer\"\n[algorithm]\n";

Loaded With(const std::vector<std::string>& overrides, const std::string& more = "") {
  return ParseRecipe(kRecipe + more, "r.toml", overrides);
}

std::string ProblemsOf(const std::vector<std::string>& overrides, const std::string& more = "") {
  try {
    With(overrides, more);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

using Sets = std::vector<std::string>;

TEST(ForeignValuesTest, AreTheOptionsThatHaveTheirDefinition) {
  const std::pair<Sets, Sets> cases[] = {
      {{"algorithm.loss_type=grpo"}, {"objective=clip", "aggregation=sequence"}},
      {{"algorithm.loss_type=bnpo"}, {"objective=clip", "aggregation=token"}},
      {{"algorithm.loss_type=dapo"}, {"objective=clip", "aggregation=token"}},
      {{"algorithm.loss_type=dr_grpo"}, {"objective=clip", "aggregation=constant"}},
      {{"algorithm.loss_type=luspo", "algorithm.importance_sampling_level=sequence"},
       {"objective=clip", "aggregation=sequence_sum", "ratio=sequence"}},
      {{"algorithm.loss_type=sapo"}, {"objective=sapo", "aggregation=sequence"}},
      {{"algorithm.loss_type=vespo"}, {"objective=vespo", "aggregation=token"}},
      {{"algorithm.loss_type=cispo", "algorithm.epsilon_high=5.0"},
       {"objective=cispo", "aggregation=token", "clip_low=1.0", "clip_high=4.0"}},
      {{"algorithm.epsilon=0.2", "algorithm.epsilon_high=3.0", "algorithm.loss_type=cispo"},
       {"objective=cispo", "aggregation=token", "clip_low=1.0", "clip_high=2.0"}},
      {{"actor_rollout_ref.actor.policy_loss.loss_mode=cispo",
        "actor_rollout_ref.actor.clip_ratio_high=0.28"},
       {"objective=cispo", "clip_high=0.28"}},
      {{"actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"},
       {"objective=clip", "ratio=token", "dual_clip=3.0"}},
      {{"actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
        "actor_rollout_ref.actor.clip_ratio_c=5.0"},
       {"objective=clip", "ratio=token", "dual_clip=5.0"}},
      {{"algorithm.loss_mode=gspo"}, {"objective=clip", "ratio=sequence"}},
      {{"algorithm.loss_mode=gpg"}, {"objective=policy_gradient"}},
      {{"algorithm.loss_mode=geo_mean"}, {"objective=geometric", "aggregation=sequence"}},
      {{"algorithm.loss_mode=sapo"}, {"objective=sapo", "aggregation=sequence"}},
      {{"algorithm.loss_mode=dppo_tv"}, {"objective=dppo_tv"}},
      {{"actor_rollout_ref.actor.loss_agg_mode=token-mean"}, {"aggregation=token"}},
      {{"algorithm.loss_agg_mode=seq-mean-token-sum"}, {"aggregation=sequence_sum"}},
      {{"algorithm.loss_agg_mode=seq-mean-token-mean"}, {"aggregation=sequence"}},
      {{"algorithm.loss_agg_mode=seq-mean-token-sum-norm"}, {"aggregation=constant"}},
      {{"actor_rollout_ref.actor.kl_loss_type=low_var_kl"}, {"kl_estimator=k3"}},
      {{"algorithm.kl_penalty=kl"}, {"kl_estimator=k1"}},
      {{"algorithm.kl_loss_type=k3+", "algorithm.kl_loss_coef=0.1"},
       {"kl_estimator=k3", "kl_straight_through=true", "kl_coef=0.1"}},
      {{"algorithm.scale_rewards=none"}, {"advantage_std=false"}},
      {{"algorithm.scale_rewards=batch"}, {"advantage_std=true", "std_over=batch"}},
      {{"algorithm.adv_estimator=gae"}, {"name=ppo"}},
      {{"algorithm.adv_estimator=grpo"},
       {"name=grpo", "advantage=group", "advantage_eps=0.000001"}},
      {{"algorithm.adv_estimator=rloo"}, {"name=grpo", "advantage=leave_one_out"}},
      {{"algorithm.adv_estimator=opo"}, {"name=grpo", "advantage=optimal"}},
      {{"algorithm.adv_estimator=remax"}, {"name=grpo", "advantage=greedy"}},
      {{"algorithm.adv_estimator=reinforce_plus_plus"},
       {"name=grpo", "advantage=batch", "skip_equal_groups=false"}},
      {{"algorithm.adv_estimator=reinforce_plus_plus_baseline"},
       {"name=grpo", "advantage=group_mean_batch_std"}},
      {{"algorithm.adv_estimator=grpo_passk"},
       {"name=grpo", "advantage=pass_k", "advantage_eps=0.000001", "pass_k=6"}},
  };
  for (const auto& [theirs, ours] : cases) {
    Sets here;
    for (const std::string& set : ours) here.push_back("algorithm." + set);
    ASSERT_EQ(ProblemsOf(theirs), "") << theirs[0];
    EXPECT_EQ(ToToml(With(theirs).config), ToToml(With(here).config)) << theirs[0];
  }
  EXPECT_EQ(With({"model.path=m", "policy.adapter=lora", "policy.target_modules=all-linear"})
                .config.policy.targets,
            std::vector<std::string>{"all-linear"});
}

TEST(ForeignValuesTest, ConfigShowSaysWhatTheyCameFrom) {
  const Loaded loaded = With({}, "loss_type = \"sapo\"\n");
  EXPECT_EQ(loaded.origins.at("algorithm.objective"), "r.toml:8, loss_type = \"sapo\"");
  EXPECT_EQ(loaded.origins.at("algorithm.aggregation"), "r.toml:8, loss_type = \"sapo\"");
  // What is said later counts, and has its own origin.
  const Loaded later = With({"algorithm.objective=clip"}, "loss_type = \"sapo\"\n");
  EXPECT_EQ(later.config.algorithm.objective, Objective::kClip);
  EXPECT_EQ(later.origins.at("algorithm.objective"), "--set");
  EXPECT_EQ(later.config.algorithm.aggregation, Aggregation::kSequence);
  EXPECT_EQ(With({"algorithm.loss_mode=vanilla"}).origins.at("algorithm.dual_clip"),
            "usual with loss_mode = \"vanilla\"");
}

TEST(ForeignValuesTest, WhatIsSaidTwiceIsAProblemOfItsLine) {
  const std::string twice =
      ProblemsOf({}, "loss_type = \"sapo\"\nloss_agg_mode = \"token-mean\"\n");
  EXPECT_NE(twice.find("r.toml:8: algorithm.loss_type = \"sapo\" says what algorithm.aggregation "
                       "is, which is given, too: keep one of them"),
            std::string::npos)
      << twice;
  // A problem of a value that was made of theirs is one of their line.
  const std::string line = ProblemsOf({}, "kl_loss_type = \"k3+\"\n");
  EXPECT_TRUE(line.starts_with("r.toml:8: algorithm.kl_straight_through is about")) << line;
  EXPECT_NE(ProblemsOf({}, "loss_type = \"cispo\"\nepsilon = 0.2\n").find("epsilon_high"),
            std::string::npos);
}

// On a command line, too; but it overrides what the file says, and its last word is its last.
TEST(ForeignValuesTest, SetsThatContradictEachOtherAreAProblem) {
  const std::pair<Sets, const char*> cases[] = {
      {{"algorithm.loss_type=bnpo", "algorithm.loss_agg_mode=seq-mean-token-mean"},
       "--set algorithm.loss_agg_mode=seq-mean-token-mean: algorithm.aggregation is \"token\" by "
       "--set algorithm.loss_type=bnpo, and \"sequence\" here: keep one of them"},
      {{"algorithm.adv_estimator=opo", "algorithm.advantage=group"}, "algorithm.advantage is"},
      {{"algorithm.scale_rewards=none", "algorithm.advantage_std=true"},
       "algorithm.advantage_std is false by"},
      {{"algorithm.kl_loss_type=low_var_kl", "algorithm.kl_estimator=k1"},
       "algorithm.kl_estimator is \"k3\" by"},
      {{"algorithm.objective=cispo", "algorithm.loss_mode=geo_mean"}, "algorithm.objective is"},
      {{"algorithm.adv_estimator=opo", "algorithm.name=gspo"}, "algorithm.name is \"grpo\" by"},
      {{"preference.loss_type=sigmoid", "preference.loss=ipo"}, "preference.loss is \"sigmoid\""},
      {{"optimizer.lr=1e-3", "actor_rollout_ref.actor.optim.lr=1e-4"},
       "optimizer.learning_rate is 0.001 by"},
  };
  for (const auto& [sets, named] : cases)
    EXPECT_NE(ProblemsOf(sets).find(named), std::string::npos) << sets[1] << ProblemsOf(sets);
  EXPECT_EQ(ProblemsOf({"algorithm.loss_type=bnpo", "algorithm.loss_agg_mode=token-mean"}), "");
  EXPECT_EQ(With({"optimizer.lr=1e-3", "optimizer.lr=1e-4"}).config.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(ProblemsOf({"data.map.prompt=a", "data.map.answer=b"}), "") << "a table's names";
  EXPECT_EQ(With({"algorithm.loss_agg_mode=seq-mean-token-mean"}, "loss_type = \"bnpo\"\n")
                .config.algorithm.aggregation,
            Aggregation::kSequence)
      << "the file's gives way";
}

TEST(ForeignValuesTest, ValuesThatAreNoneAreToldUnderTheNameThatWasUsed) {
  const std::pair<const char*, const char*> cases[] = {
      {"algorithm.scale_rewards=bath",
       "algorithm.scale_rewards = \"bath\" is not known, did you mean 'batch'? Use one of group, "
       "batch, none; or true or false"},
      {"algorithm.loss_type=lusp",
       "algorithm.loss_type = \"lusp\" is not known, did you mean 'luspo'? Use one of grpo, bnpo,"},
      {"algorithm.vespo_k_pos=-2", "algorithm.vespo_k_pos = -2: it has to be 0 or more"},
      {"algorithm.vespo_k_pos=1e300", "finite in 32 bits"},
      {"algorithm.vespo_k_pos=a", "algorithm.vespo_k_pos has to be a number, not string"},
      {"algorithm.use_adaptive_entropy=maybe",
       "algorithm.use_adaptive_entropy has to be true or false, not string"},
      {"algorithm.advantage_std=maybe", "algorithm.advantage_std has to be true or false"},
  };
  for (const auto& [set, named] : cases) {
    const std::string said = ProblemsOf({set});
    EXPECT_NE(said.find(named), std::string::npos) << set << ": " << said;
    EXPECT_EQ(said.find("unknown key"), std::string::npos) << said;
  }
  EXPECT_EQ(ForeignValuesOf("algorithm", "scale_rewards"), (Sets{"group", "batch", "none"}));
  EXPECT_TRUE(ForeignValuesOf("algorithm", "aggregation").empty());
}

TEST(ForeignValuesTest, ListsOfLossesAreASumOrAProblem) {
  const auto losses = [](const std::string& rows, const Sets& sets) -> std::string {
    try {
      std::string all;
      const std::string text =
          "[data]\ntrain = \"p.jsonl\"\n[algorithm]\nname = \"dpo\"\n[preference]\n" + rows;
      const PreferenceConfig read = ParseRecipe(text, "r.toml", sets).config.preference;
      for (const std::string& loss : read.losses) all += loss + " ";
      return all + NameOf(read.loss);
    } catch (const Error& e) {
      return e.what();
    }
  };
  const std::string two = "preference.loss_type=[\"sigmoid\", \"sft\"]";
  const std::pair<Sets, const char*> refused[] = {
      {{two, "preference.loss_weights=[0, 0]"}, "gives every loss the weight 0"},
      {{two, "preference.loss_weights=[1, -1]"}, "gives \"sft\" the weight -1"},
      {{two, "preference.loss_weights=[1e300, 1]"}, "gives \"sigmoid\" the weight 1e+300"},
      {{two, "preference.loss_weights=[true, 1]"},
       "preference.loss_weights has to be a list of numbers"},
      {{two, "preference.loss_weights=2"}, "preference.loss_weights has to be a list of numbers"},
      {{two, "preference.loss_weights=[]"}, "preference.loss_weights has to be a list of numbers"},
      {{"preference.loss_type=[]"}, "preference.loss_type has to be a loss, or a list of at least"},
      {{"preference.loss_type=[\"sft\", \"sft\"]"}, "loss_type names \"sft\" twice"},
      {{"preference.loss_type=ipo", "preference.loss_weights=[2]"},
       "write loss_type = [\"ipo\", \"sft\"]"},
      {{two, "preference.loss=ipo"}, "loss_type says what preference.loss is"},
      {{two, "preference.losses=[\"ipo=1\"]"}, "loss_type says what preference.losses is"},
  };
  for (const auto& [sets, named] : refused) {
    const std::string said = losses("", sets);
    EXPECT_NE(said.find(named), std::string::npos) << sets[0] << ": " << said;
    EXPECT_EQ(said.find("unknown key"), std::string::npos) << said;
  }
  // --set goes before what the file says, under whatever name that says it.
  const std::string listed = "loss_type = [\"ipo\", \"sft\"]\nloss_weights = [1, 2]\n";
  EXPECT_EQ(losses(listed, {two}), "sigmoid=1.0 sft=2.0 sigmoid");
  EXPECT_EQ(losses(listed, {"preference.loss=hinge"}), "hinge");
  EXPECT_EQ(losses(listed, {"preference.loss_type=hinge"}), "hinge");
  EXPECT_EQ(losses(listed, {"preference.losses=[\"hinge=1\"]"}), "hinge=1 sigmoid");
  EXPECT_EQ(losses("losses = [\"ipo=1\"]\n", {two}), "sigmoid=1 sft=1 sigmoid");
  EXPECT_EQ(losses("loss = \"ipo\"\n", {two}), "sigmoid=1 sft=1 sigmoid");
  EXPECT_EQ(losses("", {two, "preference.loss_type=hinge"}), "hinge") << "the last word";
}

TEST(ForeignValuesTest, UnderOurNamesOnlyOurValuesAreTaken) {
  EXPECT_NE(ProblemsOf({"algorithm.aggregation=dapo"}).find("algorithm.aggregation = \"token\""),
            std::string::npos);
  EXPECT_NE(ProblemsOf({"algorithm.objective=geo_mean"}).find("\"geometric\""), std::string::npos);
  EXPECT_NE(ProblemsOf({"algorithm.loss_type=ipo"}).find("write preference.loss = \"ipo\""),
            std::string::npos);
  EXPECT_NE(ProblemsOf({"algorithm.loss_type=lupso"}).find("is not known"), std::string::npos);
}

TEST(ForeignValuesTest, SwitchesAndPartsMakeOneOption) {
  const AlgorithmConfig synced =
      With({"algorithm.beta=0.1", "algorithm.sync_ref_model=true"}).config.algorithm;
  EXPECT_EQ(synced.reference_sync_every, 512);
  EXPECT_EQ(synced.reference_mix, 0.6);
  EXPECT_EQ(With({"algorithm.beta=0.1", "algorithm.ref_model_sync_steps=8",
                  "algorithm.sync_ref_model=true"})
                .config.algorithm.reference_sync_every,
            8);
  const Loaded off = With({"algorithm.ref_model_sync_steps=8", "algorithm.sync_ref_model=False"});
  EXPECT_EQ(off.config.algorithm.reference_sync_every, 0) << "TRL does not look at the steps then";
  EXPECT_EQ(off.origins.at("algorithm.reference_sync_every"), "--set, sync_ref_model = false");
  EXPECT_NE(ProblemsOf({"algorithm.beta=0.1", "algorithm.reference_sync_every=8",
                        "algorithm.sync_ref_model=false"})
                .find("contradict each other"),
            std::string::npos);
  EXPECT_EQ(With({"algorithm.use_adaptive_entropy=true"}).config.algorithm.entropy_target, 0.2);
  EXPECT_EQ(With({"algorithm.use_adaptive_entropy=true", "algorithm.entropy_target=1.5"})
                .config.algorithm.entropy_target,
            1.5);

  const Loaded vespo =
      With({"algorithm.vespo_lambda_neg=1.25"}, "loss_type = \"vespo\"\nvespo_k_pos = 4\n");
  EXPECT_EQ(vespo.config.algorithm.vespo, (std::vector<std::string>{"4.0", "3", "3", "1.25"}));

  const std::string dpo = "name = \"dpo\"\n[preference]\n";
  constexpr char kPairs[] = "data.train=p.jsonl";
  const auto losses = [&](const std::string& rows) {
    const std::string text = "[data]\ntrain = \"p.jsonl\"\n[algorithm]\n" + dpo + rows;
    return ParseRecipe(text, "r.toml", {kPairs}).config.preference.losses;
  };
  EXPECT_EQ(
      losses("loss_type = [\"sigmoid\", \"bco_pair\", \"sft\"]\nloss_weights = [0.8, 0.2, 1]\n"),
      (std::vector<std::string>{"sigmoid=0.8", "bco_pair=0.2", "sft=1.0"}));
  EXPECT_EQ(losses("loss_type = [\"apo_zero\"]\n"), std::vector<std::string>{"apo_zero=1"});
  EXPECT_TRUE(losses("loss_type = \"apo_zero\"\n").empty());
  try {
    losses("loss_type = [\"sigmoid\", \"sft\"]\nloss_weights = [0.8]\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("r.toml:7: preference.loss_weights has 1 number and "
                                         "loss_type 2 names"),
              std::string::npos)
        << e.what();
  }
}

TEST(ForeignValuesTest, TablesAreThoseOfTheRoom) {
  toml::table root = toml::parse("[algorithm]\nepochs = 2\nloss_mode = \"gpg\"\n");
  ForeignMentions mentions;
  mentions.values["algorithm.epochs"] = {.value = "old", .said = "old"};
  std::vector<std::string> problems;
  TakeForeignValues(root, {.place = [](const toml::source_region&) { return "here"; }}, mentions,
                    problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(root["algorithm"]["objective"].value<std::string>(), "policy_gradient");
  EXPECT_EQ(root["algorithm"].as_table()->find("objective")->first.source().begin.line, 3u);
  EXPECT_FALSE(root["algorithm"].as_table()->contains("loss_mode"));
  EXPECT_FALSE(mentions.values.contains("algorithm.epochs")) << "given anew";
  EXPECT_EQ(mentions.values.at("algorithm.objective").said, "loss_mode = \"gpg\"");
}

}  // namespace
}  // namespace plumb::configs
