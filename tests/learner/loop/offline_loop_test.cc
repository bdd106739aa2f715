// learner/loop/offline_loop.h: a run in two parts equals the unbroken one bit for bit.
#include "learner/loop/offline_loop.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/error.h"
#include "learner/offline/preference_objective.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

std::vector<PreferencePair> Pairs(int n, uint64_t seed) {
  std::vector<PreferencePair> out;
  for (Demonstration& d : RandomDemonstrations(n, seed)) {
    PreferencePair pair{.dataset = "toy", .row = out.size()};
    pair.rejected = d;
    for (size_t i = 2; i < d.tokens.size(); ++i)
      pair.rejected.tokens[i] = 3 + (d.tokens[i] - 3 + 5) % 16;
    pair.chosen = std::move(d);
    out.push_back(std::move(pair));
  }
  return out;
}

configs::Config OfflineRecipe(int64_t steps) {
  configs::Config config;
  config.run.steps = steps;
  config.run.checkpoint_every = 5;
  config.optimizer.learning_rate = 5e-3;
  config.optimizer.warmup_fraction = 0.1;
  return config;
}

LearnerResult RunTo(const configs::Config& config, const std::string& folder, bool resume,
                    uint64_t model_seed = 3, int64_t stop_after = -1) {
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(model_seed, 0.1);
  Optimizer optimizer(weights, config.optimizer);
  ReferencePolicy reference(weights, train);
  const auto pairs = Pairs(22, 1), heldout = Pairs(10, 2);
  PreferenceObjective objective(train, weights, optimizer, &reference, nullptr, {}, pairs, heldout);
  Checkpoints checkpoints(folder, 2, "");
  LearnerHooks hooks;
  int64_t steps = 0;
  hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    ++steps;
    EXPECT_GT(metrics.at("perf/train_tokens"), 0);
    EXPECT_GE(metrics.at("perf/shared_tokens"), 8) << "the first token of each of 8 pairs";
  };
  hooks.stop = [&] { return stop_after >= 0 && steps >= stop_after; };
  return RunOffline(config, {.batch = 8}, objective, weights, optimizer, checkpoints, hooks,
                    resume);
}

TEST(OfflineLoop, AResumedRunEqualsTheUnbrokenOne) {
  testing::TempFolder folder;
  const auto config = OfflineRecipe(24);  // nine epochs of 22 rows, cut in the middle of one
  const LearnerResult whole = RunTo(config, folder / "whole", false);
  EXPECT_EQ(whole.steps, 24);
  ASSERT_TRUE(whole.before && whole.after && whole.before->loss && whole.after->loss);
  EXPECT_NEAR(*whole.before->loss, std::log(2.0), 1e-6);
  EXPECT_LT(*whole.after->loss, 0.6);
  EXPECT_GT(whole.after->reward, 0.2);
  EXPECT_GT(whole.after->accuracy, whole.before->accuracy);

  const LearnerResult first = RunTo(config, folder / "parts", false, 3, 13);
  EXPECT_TRUE(first.stopped_early);
  EXPECT_EQ(first.steps, 13);
  EXPECT_FALSE(first.after);
  const LearnerResult rest = RunTo(config, folder / "parts", true);
  EXPECT_EQ(rest.first_step, 13);
  EXPECT_EQ(rest.weights_sha256, whole.weights_sha256);
  EXPECT_EQ(rest.optimizer_sha256, whole.optimizer_sha256);
  EXPECT_EQ(rest.policy, whole.policy);
  EXPECT_EQ(rest.tokens, whole.tokens);
  EXPECT_EQ(*rest.before->loss, *whole.before->loss);
  EXPECT_EQ(*rest.after->loss, *whole.after->loss);
}

TEST(OfflineLoop, AnotherSeedReferenceOrAnEmptyEpochIsRefused) {
  testing::TempFolder folder;
  const auto config = OfflineRecipe(2);
  RunTo(config, folder / "run", false);
  auto other = config;
  other.run.seed = 77;
  EXPECT_THROW(RunTo(other, folder / "run", true), Error);
  EXPECT_THROW(RunTo(config, folder / "run", true, /*model_seed=*/5), Error);
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  Optimizer optimizer(weights, config.optimizer);
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  const auto pairs = Pairs(3, 1);
  PreferenceObjective few(train, weights, optimizer, nullptr, nullptr,
                          {.kind = PreferenceLossKind::kSimpo}, pairs, {});
  Checkpoints checkpoints(folder / "few", 2, "");
  EXPECT_THROW(RunOffline(config, {.batch = 8}, few, weights, optimizer, checkpoints, {}, false),
               Error);
}

}  // namespace
}  // namespace plumb::learner
