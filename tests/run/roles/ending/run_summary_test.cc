#include "run/roles/ending/run_summary.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plumb::run {
namespace {

TEST(RunSummaryTest, SummaryKeepsWhatHappenedApartFromWhatWasDropped) {
  RunSummary summary;
  summary.wanted_steps = 9;
  summary.learner.steps = 7;
  summary.learner.stopped_early = true;
  summary.learner.before = learner::EvalResult{
      .version = 0, .accuracy = 0.25, .reward = 0.5, .answers = 8, .unscored = 1};
  summary.learner.policy = {.version = 7, .digest = "d7"};
  summary.learner.rewards = {
      .equal_steps = 1, .scoreless_steps = 2, .groups = 40, .equal_groups = 10};
  summary.counters = {{"dropped/unscored", 3}, {"inserts", 5},
                      {"actor/leases", 6},     {"rows/train/read", 9},
                      {"rows/train/used", 7},  {"rows/train/dropped/overlong", 2}};
  const auto json = nlohmann::json::parse(SummaryJson(summary));
  EXPECT_EQ(json["steps"], 7);
  EXPECT_EQ(json["wanted_steps"], 9);
  EXPECT_EQ(json["stopped_early"], true);
  EXPECT_EQ(json["eval"]["before"]["accuracy"], 0.25);
  EXPECT_EQ(json["eval"]["before"]["unscored"], 1);
  EXPECT_TRUE(json["eval"]["after"].is_null()) << "no evaluation is no zero";
  EXPECT_EQ(json["dropped"], nlohmann::json::parse("{\"unscored\":3}"));
  EXPECT_EQ(json["unscored"], nlohmann::json::parse("{\"answers\":0,\"never_generated\":0}"));
  EXPECT_EQ(json["counters"], nlohmann::json::parse("{\"actor/leases\":6,\"inserts\":5}"));
  EXPECT_EQ(json["rows"],
            nlohmann::json::parse(R"({"train":{"read":9,"used":7,"dropped":{"overlong":2}}})"));
  EXPECT_EQ(json["groups"], nlohmann::json::parse(R"({"scored":40,"equal":10})"));
  EXPECT_EQ(json["equal_reward_steps"], 1);
  summary.learner.rewards.groups = 0;
  EXPECT_FALSE(nlohmann::json::parse(SummaryJson(summary)).contains("groups"));
  EXPECT_EQ(json["scoreless_steps"], 2);
  EXPECT_EQ(json["policy_digest"], "d7");
  EXPECT_FALSE(json.contains("sft"));
}

TEST(RunSummaryTest, WhatNoAnswerHadAScoreForIsNotRecordedAsZero) {
  RunSummary summary;
  summary.learner.before = learner::EvalResult{.answers = 8, .unscored = 8};
  summary.learner.after = learner::EvalResult{.accuracy = 0.25, .answers = 8, .unscored = 6};
  const auto eval = nlohmann::json::parse(SummaryJson(summary))["eval"];
  for (const char* name : {"accuracy", "accuracy_se", "reward", "reward_se"}) {
    EXPECT_TRUE(eval["before"][name].is_null()) << name;
    EXPECT_TRUE(eval["after"][name].is_number()) << name;
  }
  EXPECT_EQ(eval["before"]["scored"], 0);
  EXPECT_EQ(eval["after"]["scored"], 2);
}

TEST(RunSummaryTest, OneLineSaysWhatWasLost) {
  EXPECT_EQ(LossLine({{"inserts", 5}}), "dropped: nothing; answers without a score: 0");
  EXPECT_EQ(LossLine({{"dropped/aborted", 1},
                      {"dropped/equal_rewards", 0},
                      {"dropped/unscored", 3},
                      {"dropped/trajectories", 16},
                      {"unscored_trajectories", 9},
                      {"aborted_trajectories", 4},
                      {"requeued", 2}}),
            "dropped: 4 groups (1 aborted, 3 unscored; answers of groups that trained nothing: "
            "16); answers without a score: 9, "
            "4 of them never generated; groups asked for again: 2");
}

TEST(RunSummaryTest, OneLineSaysHowManyGroupsHadNothingToTell) {
  EXPECT_EQ(EqualLine({.groups = 128, .equal_groups = 53}),
            "equal rewards: 41.4 % of 128 groups with a score: these had no direction to give");
  EXPECT_EQ(EqualLine({.groups = 8}), "equal rewards: 0.0 % of 8 groups with a score");
  EXPECT_EQ(EqualLine({}), "");
}

}  // namespace
}  // namespace plumb::run
