// configs/learning_check.h: every contradiction is named, with the options that are in it; and the
// names that other systems give to these options.
#include "configs/learning_check.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

constexpr char kRollouts[] =
    "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n";
constexpr char kPairs[] = "[data]\ntrain = \"pairs.jsonl\"\n[algorithm]\nname = \"dpo\"\n";

Config Read(const std::string& text, const std::vector<std::string>& set) {
  return ParseRecipe(text, "r.toml", set).config;
}

// What the recipe is refused with; "": it is not.
std::string Refused(const std::string& text, const std::vector<std::string>& set) {
  try {
    Read(text, set);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

struct Case {
  std::vector<std::string> set;
  const char* named;  // a part of the sentence; nullptr: it is fine
};

void Check(const std::string& text, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const std::string refused = Refused(text, c.set);
    if (c.named == nullptr) EXPECT_EQ(refused, "") << c.set[0];
    else EXPECT_NE(refused.find(c.named), std::string::npos) << c.set[0] << ": " << refused;
  }
}

TEST(LearningCheckTest, OptionsOfOneObjectiveNeedIt) {
  Check(kRollouts,
        {{{"algorithm.sapo_tau_positive=2"}, "algorithm.sapo_tau_positive is of"},
         {{"algorithm.objective=sapo", "algorithm.sapo_tau_positive=2"}, nullptr},
         {{"algorithm.objective=sapo", "algorithm.ratio=sequence"}, nullptr},
         {{"algorithm.objective=dro", "algorithm.ratio=sequence"}, "weighs tokens one by one"},
         {{"algorithm.objective=vespo", "algorithm.ratio=sequence"}, "has its own ratio"},
         {{"algorithm.objective=vespo", "algorithm.vespo=[\"2\"]"}, "is a list of 4 numbers"},
         {{"algorithm.objective=vespo", "algorithm.vespo=[\"2\", \"3\", \"-2\", \"2\"]"},
          "algorithm.vespo holds -2"},
         {{"algorithm.dro_beta=1"}, "algorithm.dro_beta is of"},
         {{"algorithm.cov_share=0.1"}, "algorithm.cov_share is of"},
         {{"algorithm.objective=kl_cov", "algorithm.cov_share=0.1"}, nullptr},
         {{"algorithm.objective=kl_cov", "algorithm.cov_low=0"}, "algorithm.cov_low is of"},
         {{"algorithm.objective=clip_cov", "algorithm.cov_low=9"}, "has to be below"},
         {{"algorithm.kl_bias_correction=true"}, "is of a KL term in the loss"},
         {{"algorithm.kl_bias_correction=true", "algorithm.kl_coef=0.1"}, nullptr},
         {{"algorithm.kl_straight_through=true", "algorithm.kl_coef=0.1",
           "algorithm.kl_placement=reward"},
          "is about a gradient"},
         {{"algorithm.kl_straight_through=true", "algorithm.kl_coef=0.1",
           "algorithm.kl_bias_correction=true"},
          "keep one of them"},
         {{"algorithm.kl_straight_through=true", "algorithm.kl_coef=0.1",
           "algorithm.kl_estimator=k2"},
          "take it out"}});
}

TEST(LearningCheckTest, AdvantagesAndMasks) {
  Check(kRollouts,
        {{{"algorithm.pass_k=3"}, "algorithm.pass_k is of"},
         {{"algorithm.advantage=pass_k", "algorithm.pass_k=99"}, "larger than rollout"},
         {{"algorithm.advantage=pass_k", "algorithm.pass_k=2"}, nullptr},
         {{"algorithm.std_over=batch"}, nullptr},
         {{"algorithm.std_over=batch", "algorithm.advantage_std=false"}, "divided by"},
         {{"algorithm.reward_aggregation=normalize_then_sum"}, nullptr},
         {{"algorithm.reward_aggregation=normalize_then_sum", "algorithm.std_over=batch"},
          "normalises by group"},
         {{"algorithm.reward_aggregation=normalize_then_sum", "reward.on_failure=penalty"},
          "goes by its parts"},
         {{"algorithm.mask_truncated=true"}, nullptr},
         {{"algorithm.mask_truncated=true", "algorithm.name=ppo"}, "of the GRPO family"},
         {{"algorithm.entropy_quantile=0.2"}, nullptr},
         {{"algorithm.entropy_quantile=0"}, "algorithm.entropy_quantile"},
         {{"algorithm.reference_mix=0.5"}, "algorithm.reference_mix is of"},
         {{"algorithm.reference_sync_every=5"}, "set algorithm.kl_coef"},
         {{"algorithm.off_policy=kl_mask", "algorithm.tis_floor=0.5"}, "has one bound"}});
}

TEST(LearningCheckTest, PreferenceLosses) {
  Check(kPairs,
        {{{"preference.loss=apo_zero"}, nullptr},
         {{"preference.losses=[\"sigmoid=0.8\", \"sft=1\"]"}, nullptr},
         {{"preference.losses=[\"sigmoid\"]"}, "preference.losses holds"},
         {{"preference.losses=[\"kto=1\"]"}, "but for kto"},
         {{"preference.losses=[\"sft=-1\"]"}, "preference.losses gives \"sft\" the weight -1"},
         {{"preference.losses=[\"dpo=1\"]"}, "preference.losses holds \"dpo\""},
         {{"preference.losses=[\"sft=1\"]", "preference.loss=ipo"}, "keep one"},
         {{"preference.loss=exo_pair"}, "logarithm"},
         {{"preference.loss=exo_pair", "preference.label_smoothing=0.01"}, nullptr},
         {{"preference.divergence=js_divergence"}, nullptr},
         {{"preference.divergence=js_divergence", "preference.loss=apo_down"}, "has none of them"},
         {{"preference.divergence_alpha=0.5"}, "preference.divergence_alpha is of"},
         {{"preference.ld_alpha=0.5"}, nullptr},
         {{"preference.ld_alpha=0.5", "preference.loss=simpo"}, "does not go with"},
         {{"preference.discopop_tau=0.1"}, "is of the loss"},
         {{"preference.use_weighting=true"}, nullptr},
         {{"preference.weighted=true", "preference.loss=aot"}, "preference.weighted"},
         {{"preference.weighted=true", "preference.losses=[\"sigmoid=1\", \"sft=1\"]"},
          "preference.weighted"},
         {{"preference.loss=aot", "preference.batch=1"}, "2 at least"}});
  Check(kRollouts, {{{"preference.losses=[\"sft=1\"]"}, "algorithm.name = \"dpo\""}});
}

TEST(LearningCheckTest, Muon) {
  Check(kRollouts,
        {{{"optimizer.name=muon"}, nullptr},
         {{"optimizer.optim=muon", "optimizer.muon_learning_rate=0.01"}, nullptr},
         {{"optimizer.muon_learning_rate=0.01"}, "are of optimizer.name"},
         {{"optimizer.name=muon", "optimizer.moments=int8"}, "keeps momentum and masters"},
         {{"optimizer.name=muon", "run.parallel=dp=2"}, "run.zero cuts them"},
         {{"optimizer.name=muon", "run.parallel=dp=2", "run.zero=0"}, nullptr}});
}

TEST(LearningCheckTest, GradientsInBfloat16) {
  Check(kRollouts, {{{"optimizer.gradients=bfloat16"}, nullptr},
                    {{"optimizer.gradients=bfloat16", "policy.adapter=lora"}, "of a whole model"},
                    {{"optimizer.gradients=bfloat16", "optimizer.name=muon"}, "\"adamw\" only"},
                    {{"optimizer.gradients=bfloat16", "run.parallel=dp=2"}, "of one rank"}});
  EXPECT_TRUE(MayNarrowGradients(Read(kRollouts, {})));
  EXPECT_FALSE(MayNarrowGradients(Read(kRollouts, {"optimizer.gradients=bfloat16"})));
  Config adapter = Read(kRollouts, {});
  adapter.policy.adapter = Adapter::kLora;
  EXPECT_FALSE(MayNarrowGradients(adapter));
}

TEST(LearningCheckTest, StateInTheHostsMemory) {
  Check(kRollouts,
        {{{"optimizer.offload=true"}, "is for a GPU (run.device = \"cuda\")"},
         {{"optimizer.offload=true", "run.device=cuda"}, nullptr},
         {{"optimizer.cpu_offload=true", "run.device=cuda:1", "optimizer.moments=int8"}, nullptr},
         {{"optimizer.offload=true", "run.device=cuda", "optimizer.name=muon"},
          "\"muon\" updates whole matrices"},
         {{"optimizer.offload=false", "optimizer.name=muon"}, nullptr}});
}

TEST(LearningCheckTest, NamesOfOtherSystemsKeepTheirDefinitions) {
  // TRL's bound of CISPO is the bound, verl's its distance from 1.
  const Config trl = Read(kRollouts, {"algorithm.objective=cispo", "algorithm.epsilon_high=5"});
  EXPECT_DOUBLE_EQ(trl.algorithm.clip_high, 4);
  EXPECT_DOUBLE_EQ(trl.algorithm.clip_low, 1);
  const Config verl = Read(kRollouts, {"algorithm.objective=cispo", "algorithm.clip_ratio_high=0.3",
                                       "algorithm.clip_ratio_low=0.1"});
  EXPECT_DOUBLE_EQ(verl.algorithm.clip_high, 0.3);
  EXPECT_DOUBLE_EQ(verl.algorithm.clip_low, 0.1);
  EXPECT_DOUBLE_EQ(Read(kRollouts, {"algorithm.epsilon_high=0.28"}).algorithm.clip_high, 0.28);
  EXPECT_DOUBLE_EQ(
      Read(kRollouts, {"algorithm.name=cispo", "algorithm.epsilon_high=3"}).algorithm.clip_high, 2);

  const Config c = Read(
      kRollouts, {"algorithm.loss_mode=sapo", "algorithm.tau_pos=0.5",
                  "algorithm.sapo_temperature_neg=2", "algorithm.mask_truncated_completions=true",
                  "algorithm.off_policy_mask_threshold=0.5", "algorithm.top_entropy_quantile=0.2"});
  EXPECT_EQ(c.algorithm.objective, Objective::kSapo);
  EXPECT_DOUBLE_EQ(c.algorithm.sapo_tau_positive, 0.5);
  EXPECT_DOUBLE_EQ(c.algorithm.sapo_tau_negative, 2);
  EXPECT_TRUE(c.algorithm.mask_truncated);
  EXPECT_DOUBLE_EQ(c.algorithm.off_policy_sequence_mask, 0.5);
  EXPECT_DOUBLE_EQ(c.algorithm.entropy_quantile, 0.2);
  Check(kRollouts, {{{"algorithm.aggregation=luspo"}, "sequence_sum"},
                    {{"algorithm.aggregation=vespo"}, "algorithm.objective = \"vespo\""},
                    {{"algorithm.objective=geo_mean"}, "algorithm.objective = \"geometric\""},
                    {{"algorithm.kl_estimator=k3+"}, "kl_straight_through"},
                    {{"algorithm.name=opo"}, "algorithm.advantage = \"optimal\""},
                    {{"algorithm.advantage_std=batch"}, "algorithm.std_over"},
                    {{"vespo_k_pos=3"}, "algorithm.vespo"},
                    {{"sync_ref_model=true"}, "algorithm.reference_sync_every"}});
  Check(kPairs, {{{"preference.loss_weights=[0.8]"}, "preference.losses"}});
}

}  // namespace
}  // namespace plumb::configs
