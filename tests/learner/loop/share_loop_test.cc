// The offline loop as ranks that compute the model together: the losses of one rank, one checkpoint
// of whole tensors that one rank goes on with (learner/loop/step_loop.h, update/shares).
#include <gtest/gtest.h>

#include <cmath>

#include "learner/loop/offline_loop.h"
#include "learner/offline/sft_objective.h"
#include "learner/ranks/rank_grid.h"
#include "learner/update/shares/model_share.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

std::vector<double> TrainAs(Ranks* ranks, int tp, int64_t steps, const std::string& folder,
                            bool resume) {
  configs::Config config;
  config.run.steps = steps;
  config.run.checkpoint_every = 2;
  config.optimizer.micro_batch_tokens = 64;
  config.optimizer.learning_rate = 1e-3;
  config.optimizer.warmup_fraction = 0;
  config.checkpoint.optimizer = configs::KeepOptimizer::kAlways;
  const RankGrid grid(ranks, tp, ranks ? ranks->size() : 1);
  Weights whole(TinyShape(), Device::kCpu, DType::kFloat32);
  whole.Initialise(3, 0.2);
  std::unique_ptr<ModelShare> share;
  if (grid.tensor()) share = std::make_unique<ModelShare>(*grid.tensor(), whole);
  Weights& weights = share ? share->weights() : whole;
  Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  transformer.SetGroup(share.get(), whole.shape().vocab);
  TrainStep train(transformer, config.optimizer.micro_batch_tokens, grid.data());
  Optimizer optimizer(weights, config.optimizer, {}, SharingOf(config, grid.data(), share.get()));
  train.UsePartsOf(weights, optimizer);
  const auto data = RandomDemonstrations(20, 1), heldout = RandomDemonstrations(7, 2);
  SftObjective objective(train, weights, optimizer, data, heldout);
  Checkpoints checkpoints(folder, 2, "");
  std::vector<double> losses;
  LearnerHooks hooks;
  hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    losses.push_back(metrics["sft/loss"]);
  };
  const LearnerResult result = RunOffline(config, {.batch = 8}, objective, whole, optimizer,
                                          checkpoints, hooks, resume, ranks);
  EXPECT_EQ(result.steps, steps);
  losses.push_back(result.after->loss.value());
  return losses;
}

TEST(ShareLoopTest, RanksTrainTogetherWhatOneTrainsAndOneGoesOn) {
  const testing::TempFolder one_folder, folder;
  std::vector<double> one;
  AsRanks(1, [&](Ranks*) { one = TrainAs(nullptr, 1, 5, one_folder.path(), false); });
  std::vector<std::vector<double>> first(4);
  AsRanks(4, [&](Ranks* ranks) {
    first[static_cast<size_t>(ranks->rank())] = TrainAs(ranks, 2, 3, folder.path(), false);
  });
  for (const auto& losses : first) {
    ASSERT_EQ(losses, first[0]);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[i], one[i], 2e-6 * std::abs(one[i])) << i;
  }
  std::vector<double> then;
  AsRanks(1, [&](Ranks*) { then = TrainAs(nullptr, 1, 5, folder.path(), true); });
  ASSERT_EQ(then.size(), 3u) << "two steps, and what is held out";
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(then[i], one[3 + i], 1e-5 * std::abs(one[3 + i])) << i;
}

}  // namespace
}  // namespace plumb::learner
