// run/session/stages/stage_plan.h: the recipes of a course, their options and their models.
#include "run/session/stages/stage_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

class StagePlan : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    RealFileSystem().WriteFileAtomic(temp_ / (name + ".toml"), text);
  }
  void SetUp() override {
    Write("tiny_sft",
          "[model]\nvocabulary = \"bytes\"\nlayers = 1\nattention = \"latent\"\n"
          "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"sft\"\n");
    Write("tiny_rm", "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"reward_model\"\n");
    Write("tiny_dpo",
          "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"dpo\"\n"
          "[[reward.parts]]\nkind = \"reward_model\"\npath = \"stage:rm\"\n");
    Write("tiny",
          "[run]\nseed = 7\nsteps = 3\nstages = [\"tiny_sft.toml\", \"tiny_rm.toml\", "
          "\"tiny_dpo.toml\"]\n[model]\nhidden = 32\nheads = 2\n");
  }
  std::vector<Stage> Plan(const std::vector<std::string>& set = {}) {
    return PlanStages(configs::LoadRecipe(temp_ / "tiny.toml", set), "/runs/x");
  }
  std::string WhyNot(const std::vector<std::string>& set = {}) {
    try {
      Plan(set);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  const TempFolder temp_;
};

TEST_F(StagePlan, EachGoesOnFromTheLanguageModelBeforeIt) {
  const auto stages = Plan();
  ASSERT_EQ(stages.size(), 3u);
  EXPECT_EQ(stages[0].name, "sft");
  EXPECT_EQ(stages[0].folder, "/runs/x/1-sft");
  EXPECT_EQ(stages[1].folder, "/runs/x/2-rm");
  EXPECT_EQ(stages[0].config.model.path, "");
  EXPECT_EQ(stages[1].config.model.path, "/runs/x/1-sft/model");
  EXPECT_EQ(stages[2].config.model.path, "/runs/x/1-sft/model") << "a reward model cannot answer";
  EXPECT_EQ(stages[2].config.reward.parts[0].path, "/runs/x/2-rm/model");
  EXPECT_EQ(StageName(stages, 1), "stage 2 of 3 (rm, " + (temp_ / "tiny_rm.toml") + ")");
}

TEST_F(StagePlan, TheRecipesOptionsHoldForAllButThoseOfANewModel) {
  const auto stages = Plan({"optimizer.learning_rate=0.5"});
  for (const Stage& stage : stages) {
    EXPECT_EQ(stage.config.run.seed, 7u) << stage.name;
    EXPECT_EQ(stage.config.run.steps, 3) << stage.name;
    EXPECT_EQ(stage.config.optimizer.learning_rate, 0.5) << stage.name;
  }
  EXPECT_EQ(stages[0].config.model.hidden, 32);
  EXPECT_EQ(WithFirstModel(stages, 2).model.hidden, 32);
  EXPECT_EQ(WithFirstModel(stages, 2).model.path, "");
  // What the recipe gives, and nothing else, is a recipe of the same stages.
  const auto loaded = configs::LoadRecipe(temp_ / "tiny.toml", {"optimizer.learning_rate=0.5"});
  Write("again", GivenOptions(loaded));
  const auto again = PlanStages(configs::LoadRecipe(temp_ / "again.toml"), "/runs/x");
  ASSERT_EQ(again.size(), 3u);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(configs::ToToml(again[i].config), configs::ToToml(stages[i].config));
}

TEST_F(StagePlan, ErrorsNameTheStageAndItsRecipe) {
  Write("tiny_rm", "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"reward_modle\"\n");
  EXPECT_NE(WhyNot().find("stage 2 of 3 (rm, " + (temp_ / "tiny_rm.toml")), std::string::npos)
      << WhyNot();
  EXPECT_NE(WhyNot().find("reward_modle"), std::string::npos) << WhyNot();
  Write("tiny_rm", "[run]\nstages = [\"tiny_sft.toml\"]\n");
  EXPECT_NE(WhyNot().find("has stages of its own"), std::string::npos) << WhyNot();
  std::filesystem::remove(temp_ / "tiny_rm.toml");
  EXPECT_NE(WhyNot().find("tiny_rm.toml"), std::string::npos) << WhyNot();
}

TEST_F(StagePlan, AModelOfAStageThatThereIsNotIsRefused) {
  Write("tiny_dpo",
        "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"dpo\"\n"
        "[[reward.parts]]\nkind = \"reward_model\"\npath = \"stage:judge\"\n");
  EXPECT_NE(WhyNot().find("no stage before has that name; there are: sft, rm"), std::string::npos)
      << WhyNot();
}

TEST_F(StagePlan, AStudentOfAStageIsAModelOfItsOwn) {
  const std::string student =
      "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"sft\"\n[distill]\ndistance = "
      "\"jsd\"\nteachers = [\"other=/\", \"stage:sft\"]\n[model]\nvocabulary = \"bytes\"\n";
  Write("tiny_dpo", student + "layers = 1\nhidden = 16\nheads = 1\nkv_heads = 1\n");
  auto stages = PlanStages(configs::LoadRecipe(temp_ / "tiny.toml"), temp_ / "x");
  EXPECT_EQ(stages[2].config.model.path, "");
  EXPECT_EQ(stages[2].config.model.hidden, 16) << "not the first stage's";
  EXPECT_EQ(stages[2].config.distill.teachers,
            (std::vector<std::string>{"other=/", temp_ / "x/1-sft/model"}));
  EXPECT_EQ(WithFirstModel(stages, 2).model.hidden, 16);
  EXPECT_EQ(WithFirstModel(stages, 2).distill.teachers, std::vector<std::string>{"other=/"})
      << "there is nothing to read of a model that will be";
  Write("tiny_dpo", student + "path = \"stage:sft\"\n");
  stages = PlanStages(configs::LoadRecipe(temp_ / "tiny.toml"), temp_ / "x");
  EXPECT_EQ(stages[2].config.model.path, temp_ / "x/1-sft/model") << "a copy of its teacher";
  Write("tiny_dpo",
        "[data]\ntrain = \"tiny_texts\"\n[algorithm]\nname = \"sft\"\n[distill]\ndistance = "
        "\"jsd\"\nteachers = "
        "[\"stage:none\"]\n");
  EXPECT_NE(WhyNot().find("no stage before has that name"), std::string::npos) << WhyNot();
}

TEST_F(StagePlan, RewardPartsBelongIntoTheStages) {
  EXPECT_NE(WhyNot({"reward.parts.0.kind=answer"}).find("recipes of the stages"),
            std::string::npos);
}

}  // namespace
}  // namespace plumb::run
