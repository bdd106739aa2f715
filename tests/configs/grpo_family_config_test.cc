// The GRPO family's names in configs/config.h: what each sets, what the recipe overrides, what
// contradicts.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

std::string Recipe(const std::string& algorithm, const std::string& rest = "") {
  return "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n[algorithm]\n" +
         algorithm + "\n" + rest;
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

AlgorithmConfig Of(const std::string& algorithm) {
  return ParseRecipe(Recipe(algorithm), "r.toml").config.algorithm;
}

TEST(GrpoFamilyConfigTest, ANameSetsTheMethodsUsualValues) {
  EXPECT_FALSE(Of("name = \"dr_grpo\"").advantage_std);
  EXPECT_EQ(Of("name = \"dr_grpo\"").aggregation, Aggregation::kConstant);
  EXPECT_EQ(Of("name = \"dapo\"").clip_high, 0.28);
  EXPECT_EQ(Of("name = \"dapo\"").dual_clip, 10.0);
  EXPECT_EQ(Of("name = \"dapo\"").refill_rounds, 9);
  EXPECT_EQ(Of("name = \"grpo\"").refill_rounds, 0);
  EXPECT_EQ(Of("name = \"gspo\"").ratio, RatioLevel::kSequence);
  EXPECT_EQ(Of("name = \"gspo\"").clip_low, 3e-4);
  EXPECT_EQ(Of("name = \"rloo\"").advantage, Advantage::kLeaveOneOut);
  EXPECT_EQ(Of("name = \"rloo\"").kl_coef, 0.05);
  EXPECT_EQ(Of("name = \"rloo\"").kl_placement, KlPlacement::kReward);
  EXPECT_EQ(Of("name = \"reinforce++\"").advantage, Advantage::kBatch);
  EXPECT_EQ(Of("name = \"cispo\"").objective, Objective::kCispo);
  EXPECT_EQ(Of("name = \"cispo\"").clip_high, 4.0);
  EXPECT_EQ(Of("name = \"grpo\"").kl_coef, 0.0);
}

TEST(GrpoFamilyConfigTest, WhatTheRecipeSaysStays) {
  const Loaded loaded = ParseRecipe(Recipe("name = \"gspo\"\nclip_high = 0.01\nkl_coef = 0.1"),
                                    "r.toml", {"algorithm.ratio=token"});
  EXPECT_EQ(loaded.config.algorithm.clip_high, 0.01);
  EXPECT_EQ(loaded.config.algorithm.clip_low, 3e-4);
  EXPECT_EQ(loaded.config.algorithm.ratio, RatioLevel::kToken);
  EXPECT_EQ(loaded.origins.at("algorithm.clip_low"), "default of gspo");
  EXPECT_EQ(loaded.origins.at("algorithm.clip_high"), "r.toml:7");
  EXPECT_EQ(loaded.origins.at("algorithm.ratio"), "--set");
  const Loaded again = ParseRecipe(ToToml(loaded.config), "again.toml");
  EXPECT_EQ(ToToml(again.config), ToToml(loaded.config));
}

TEST(GrpoFamilyConfigTest, ContradictionsAreSaid) {
  EXPECT_NE(ProblemsOf(Recipe("name = \"cispo\"\nratio = \"sequence\""))
                .find("needs algorithm.ratio = \"token\""),
            std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("name = \"reinforce++\"\nratio = \"product\""))
                .find("needs algorithm.ratio"),
            std::string::npos);
  EXPECT_NE(
      ProblemsOf(Recipe("name = \"reinforce++\"\nkl_placement = \"loss\"")).find("kl_placement"),
      std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("name = \"dapo\"", "[rollout]\nsamples_per_prompt = 1\n"))
                .find("at least 2"),
            std::string::npos);
  EXPECT_EQ(ProblemsOf(Recipe("name = \"reinforce++\"", "[rollout]\nsamples_per_prompt = 1\n")),
            "");
  EXPECT_NE(ProblemsOf(Recipe("name = \"ppo\"\nratio = \"sequence\"")).find("GRPO family"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("name = \"reinforce++\"\nrefill_rounds = 2")).find("leave it at 0"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("refill_rounds = 2", "[rollout]\nsamples_per_prompt = 1\n"))
                .find("dynamic sampling"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("refill_rounds = 2", "[replay]\nprompts = \"uniform\"\n"))
                .find("in passes"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("off_policy = \"icepop\"")).find("token_mask"), std::string::npos);
  EXPECT_NE(ProblemsOf(Recipe("minibatches = 9",
                              "[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 4\n"))
                .find("minibatches"),
            std::string::npos);
  EXPECT_EQ(ProblemsOf(Recipe("minibatches = 8",
                              "[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 4\n")),
            "");
}

}  // namespace
}  // namespace plumb::configs
