// configs/checks/unread_options.h: what an algorithm does not read is said.
#include "configs/checks/unread_options.h"

#include <gtest/gtest.h>

#include "configs/defaults.h"
#include "configs/recipe_problems.h"

namespace plumb::configs {
namespace {

using Names = std::vector<std::string>;

TEST(UnreadOptions, OfPairsAreSaidWhereNoPairsAreRead) {
  Names notes;
  Config config;
  SayUnread(config, notes);
  EXPECT_TRUE(notes.empty()) << "all is as it is by default";
  config.preference.beta = 0.3;
  config.preference.batch = 3;
  SayUnread(config, notes);
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_EQ(
      notes[0],
      "preference.beta = 0.3 is not read: algorithm.name = \"grpo\" learns from no pairs; the "
      "weight of its KL to the reference is algorithm.kl_coef");
  EXPECT_TRUE(notes[1].starts_with("preference.batch = 3 is not read")) << notes[1];
  for (const AlgorithmName reads : {AlgorithmName::kDpo, AlgorithmName::kRewardModel}) {
    config.algorithm.name = reads;
    SayUnread(config, notes);
  }
  EXPECT_EQ(notes.size(), 2u);
}

TEST(UnreadOptions, OfAnswersAreSaidWhereNoneAreDrawn) {
  Names notes;
  for (const AlgorithmName name :
       {AlgorithmName::kSft, AlgorithmName::kDpo, AlgorithmName::kRewardModel}) {
    Config config = DefaultsOf(name);
    SayUnread(config, notes);
    EXPECT_TRUE(notes.empty()) << NameOf(name) << ": " << notes.front();
    config.algorithm.epochs = 3;
    config.rollout.max_new_tokens = 7;
    SayUnread(config, notes);
    ASSERT_EQ(notes.size(), 2u) << NameOf(name);
    EXPECT_TRUE(notes[0].starts_with("algorithm.epochs = 3 is not read: \"" + NameOf(name) + "\""))
        << notes[0];
    EXPECT_NE(notes[0].find("for N passes run.steps = N x rows / "), std::string::npos) << notes[0];
    EXPECT_TRUE(notes[1].starts_with("rollout.max_new_tokens = 7 is not read")) << notes[1];
    notes.clear();
  }
  Config drawn = DefaultsOf(AlgorithmName::kGrpo);
  drawn.algorithm.epochs = 3;
  drawn.rollout.max_new_tokens = 7;
  SayUnread(drawn, notes);
  EXPECT_TRUE(notes.empty());
}

TEST(UnreadOptions, AreNotesOfARecipe) {
  Names problems, notes;
  ParseRecipe("[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n", "r.toml",
              {"preference.beta=0.3"}, problems, &notes);
  EXPECT_TRUE(problems.empty());
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("algorithm.kl_coef"), std::string::npos) << notes[0];
}

TEST(UnreadOptions, TheAlgorithmsOwnOfSeveralOptionsComesFirst) {
  const Names betas = {"algorithm.kl_coef", "distill.beta", "preference.beta"};
  EXPECT_EQ(OwnFirst(betas, AlgorithmName::kGrpo), betas);
  EXPECT_EQ(OwnFirst(betas, AlgorithmName::kDpo).front(), "preference.beta");
  EXPECT_EQ(OwnFirst({"critic.learning_rate", "optimizer.learning_rate", "sft.learning_rate"},
                     AlgorithmName::kSft)
                .front(),
            "optimizer.learning_rate");
  EXPECT_EQ(OwnFirst({"preference.batch", "sft.batch"}, AlgorithmName::kSft).front(), "sft.batch");
  EXPECT_TRUE(OwnFirst({"algorithm.epochs"}, AlgorithmName::kSft)
                  .front()
                  .starts_with("run.steps, which counts updates"));
  EXPECT_EQ(OwnFirst({"algorithm.epochs"}, AlgorithmName::kGrpo).front(), "algorithm.epochs");
  Names problems;
  ParseRecipe("beta = 0.1\n[algorithm]\nname = \"dpo\"\n", "r.toml", {"learning_rate=1"}, problems);
  ASSERT_GE(problems.size(), 2u);
  EXPECT_NE(problems[0].find("'beta': here it is preference.beta or algorithm.kl_coef"),
            std::string::npos)
      << problems[0];
  EXPECT_NE(problems[1].find("'learning_rate': here it is optimizer.learning_rate or"),
            std::string::npos)
      << problems[1];
}

}  // namespace
}  // namespace plumb::configs
