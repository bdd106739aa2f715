#include "run/roles/observer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plumb::run {
namespace {

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
