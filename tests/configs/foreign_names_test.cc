// configs/foreign_names.h: values of other systems under our names are told what to write.
#include "configs/foreign_names.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

constexpr char kRecipe[] = R"(
[data]
train = "arithmetic"
[[reward.parts]]
kind = "answer"
)";

std::string ProblemsOf(const std::string& set) {
  try {
    ParseRecipe(kRecipe, "r.toml", {set});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ForeignNamesTest, AValueOfAnotherSystemIsToldWhatToWrite) {
  const std::pair<const char*, const char*> cases[] = {
      {"algorithm.loss_type=ipo", "write preference.loss = \"ipo\""},
      {"algorithm.aggregation=grpo", "algorithm.aggregation = \"sequence\""},
      {"algorithm.aggregation=dr_grpo", "algorithm.aggregation = \"constant\""},
      {"algorithm.aggregation=dapo", "algorithm.aggregation = \"token\""},
      {"algorithm.aggregation=bnpo", "one batch here"},
      {"algorithm.advantage_std=group", "write algorithm.advantage_std = true"},
      {"algorithm.advantage_std=none", "write algorithm.advantage_std = false"},
      {"algorithm.advantage_std=batch", "algorithm.std_over = \"batch\""},
      {"policy.targets=all-linear", "[\"all-linear\"]"},
      {"preference.loss=dpo", "preference.loss = \"sigmoid\""},
      {"algorithm.name=gae", "write algorithm.name = \"ppo\""},
      {"algorithm.name=orpo", "algorithm.name = \"dpo\" with preference.loss = \"orpo\""},
  };
  for (const auto& [set, said] : cases)
    EXPECT_NE(ProblemsOf(set).find(said), std::string::npos) << set << ": " << ProblemsOf(set);
  EXPECT_EQ(ProblemsOf("algorithm.aggregation=token"), "");
}

// What TRL and verl say of length, trackers and reward functions, which are other things here.
TEST(ForeignNamesTest, AKeyOfAnotherSystemIsToldWhereItIs) {
  for (const auto& [set, said] : {std::pair("num_train_epochs=2", "N x rows / batch"),
                                  {"metrics.wandb=true", "metrics.follow (wandb, trackio, mlflow)"},
                                  {"wandb_project=mine", "WANDB_PROJECT"},
                                  {"algorithm.cpo_alpha=1", "preference.losses = [\"simpo=1\""},
                                  {"reward_model_path=m", "kind = \"reward_model\""},
                                  {"sft.assistant_only_loss=true", "docs/text.md"},
                                  {"data.shuffle_dataset=false", "it is data.shuffle"},
                                  {"sft.truncation_mode=keep_end", "data.overlong = \"left\""},
                                  {"reward.parts.0.function=f", "args = [\"function=NAME\"]"},
                                  {"reward.parts.0.module=f.py", "its path: path = \"reward.py\""}})
    EXPECT_NE(ProblemsOf(set).find(said), std::string::npos) << set << ": " << ProblemsOf(set);
}

TEST(ForeignNamesTest, WhatIsWrittenInsteadIsTaken) {
  for (const char* set : {"algorithm.aggregation=sequence", "algorithm.aggregation=constant",
                          "algorithm.advantage_std=false", "preference.loss=sigmoid"})
    EXPECT_EQ(ProblemsOf(set), "") << set;
}

TEST(ForeignNamesTest, LossesOnPreferencesAreNoAlgorithms) {
  EXPECT_EQ(ForeignAlgorithm("kto"), "algorithm.name = \"dpo\" with preference.loss = \"kto\"");
  EXPECT_EQ(ForeignAlgorithm("grpo"), "");
  EXPECT_EQ(ForeignKey("nothing"), "");
  EXPECT_EQ(ForeignValue("run.steps", "dpo"), "");
}

}  // namespace
}  // namespace plumb::configs
