#include "run/roles/observer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plumb::run {
namespace {

TEST(ObserverTest, SummaryKeepsWhatHappenedApartFromWhatWasDropped) {
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

TEST(ObserverTest, WhatNoAnswerHadAScoreForIsNotRecordedAsZero) {
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

TEST(ObserverTest, OneLineSaysWhatWasLost) {
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

TEST(ObserverTest, OneLineSaysHowManyGroupsHadNothingToTell) {
  EXPECT_EQ(EqualLine({.groups = 128, .equal_groups = 53}),
            "equal rewards: 41.4 % of 128 groups with a score: these had no direction to give");
  EXPECT_EQ(EqualLine({.groups = 8}), "equal rewards: 0.0 % of 8 groups with a score");
  EXPECT_EQ(EqualLine({}), "");
}

TEST(ObserverTest, CountersGetTheRoomTheyComeFrom) {
  std::map<std::string, double> metrics = {{"reward/mean", 1.0}};
  AddCounterMetrics(
      {{"inserts", 5}, {"dropped/unscored", 3}, {"rpc/requests", 2}, {"rows/train/read", 9}},
      metrics);
  EXPECT_EQ(metrics, (std::map<std::string, double>{{"reward/mean", 1.0},
                                                    {"replay/inserts", 5.0},
                                                    {"dropped/unscored", 3.0},
                                                    {"rpc/requests", 2.0}}));
}

TEST(ObserverTest, ActorsAddUp) {
  std::map<std::string, int64_t> counters;
  actor::RolloutCounters one;
  one.leases = 4;
  one.refused_prompts = 1;
  actor::EngineCounters engine;
  engine.prefill_tokens = 30;
  engine.prefix_tokens_reused = 12;
  engine.recomputed_tokens = 7;
  AddRolloutCounters(one, engine, counters);
  AddRolloutCounters(one, engine, counters);
  EXPECT_EQ(counters["actor/leases"], 8);
  EXPECT_EQ(counters["actor/refused_prompts"], 2);
  EXPECT_EQ(counters["rollout/prompt_tokens_computed"], 60);
  EXPECT_EQ(counters["rollout/prefix_tokens_reused"], 24);
  EXPECT_EQ(counters["rollout/recomputed_tokens"], 14);
}

TEST(ObserverTest, RunsAreToldApartByWhatTheyChange) {
  configs::Config config;
  config.optimizer.learning_rate = 0.25;
  config.data.shuffle = !config.data.shuffle;
  config.run.out = "somewhere";
  config.metrics.samples_every = 77;
  config.reward.parts.resize(1);
  config.reward.parts[0].kind = "length";
  const HyperParameters values = TellingOptions(config);
  EXPECT_EQ(std::get<double>(values.at("optimizer.learning_rate")), 0.25);
  EXPECT_EQ(std::get<bool>(values.at("data.shuffle")), config.data.shuffle);
  EXPECT_EQ(std::get<std::string>(values.at("reward.parts.0.kind")), "length");
  EXPECT_TRUE(values.contains("algorithm.name")) << "everybody looks for it";
  EXPECT_FALSE(values.contains("rollout.temperature")) << "as in every run";
  EXPECT_FALSE(values.contains("reward.parts.0.path"));
  EXPECT_FALSE(values.contains("run.out"));
  EXPECT_FALSE(values.contains("metrics.samples_every"));
}

}  // namespace
}  // namespace plumb::run
