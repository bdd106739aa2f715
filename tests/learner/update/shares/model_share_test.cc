// Ranks that compute one model together against one rank: losses, gradients, weights and bytes of
// updates (learner/update/shares/model_share.h), and files that know nothing of ranks.
#include "learner/update/shares/model_share.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "learner/ranks/rank_grid.h"
#include "tests/learner/shared_update.h"

namespace plumb::learner {
namespace {

using policy_model::ModelShape;
using policy_model::Transformer;
using policy_model::Weights;

std::vector<std::pair<std::string, ModelShape>> Shapes() {
  ModelShape tied = TinyShape();  // llama
  tied.vocab = 19;                // which no two ranks share equally
  tied.kv_heads = 4;
  ModelShape normed = tied;
  normed.family = "qwen3";
  normed.tied = false;
  normed.vocab = 20;
  normed.unused_tokens = {1, 19};
  ModelShape biased = tied;
  biased.attention_bias = biased.output_bias = biased.mlp_bias = true;
  ModelShape behind = tied;  // norms behind branches, scaled embeddings, windows
  behind.family = "gemma3_text";
  behind.window = 4;
  behind.sliding = {1, 0};
  ModelShape large = normed;  // the head is one kernel
  large.vocab = 4 * 4096;
  large.unused_tokens = {4097, 16383};
  return {
      {"tied", tied}, {"normed", normed}, {"biased", biased}, {"behind", behind}, {"large", large}};
}

// A rank's life: its grid, its share, and what trains.
struct Rank {
  Rank(Ranks* ranks, int tp, const ModelShape& shape, DType dtype = DType::kFloat32,
       int64_t zero = 0, bool recompute = false)
      : grid(ranks, tp, ranks ? ranks->size() : 1), whole(shape, Device::kCpu, dtype) {
    whole.Initialise(3, 0.2);
    if (grid.tensor()) share = std::make_unique<ModelShare>(*grid.tensor(), whole);
    transformer = std::make_unique<Transformer>(weights().shape(), Device::kCpu, dtype);
    transformer->SetGroup(share.get(), shape.vocab);
    transformer->RecomputeLayers(recompute);
    train = std::make_unique<TrainStep>(*transformer, 64, grid.data());
    optimizer = std::make_unique<Optimizer>(
        weights(), configs::OptimizerConfig{.learning_rate = 1e-3}, TrainingRules{},
        Sharing{.ranks = grid.data(), .zero = grid.data() ? zero : 0, .share = share.get()});
    train->UsePartsOf(weights(), *optimizer);
    if (share) share->Spread();
  }
  Weights& weights() { return share ? share->weights() : whole; }

  double Accumulate(std::vector<float>* results = nullptr) {
    return AccumulateLoss(*train, weights(), *optimizer, results);
  }

  RankGrid grid;
  Weights whole;
  std::unique_ptr<ModelShare> share;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<TrainStep> train;
  std::unique_ptr<Optimizer> optimizer;
};

Seen UpdateAs(Rank& rank, Ranks* /*ranks*/, int updates) {
  Seen seen;
  seen.loss = rank.Accumulate(&seen.results);
  const UpdateResult update = rank.optimizer->Update(1e-3, seen.loss);
  EXPECT_TRUE(update.applied);
  seen.norm = update.grad_norm;
  seen.gradient = JoinedGradient(rank);
  for (int i = 1; i < updates; ++i)
    EXPECT_TRUE(rank.optimizer->Update(1e-3, rank.Accumulate()).applied);
  rank.optimizer->GatherWeights();
  seen.weights = AllOf(rank.whole);
  return seen;
}

TEST(ModelShareTest, TwoAndFourRanksFindWhatOneRankFinds) {
  for (const auto& [name, shape] : Shapes())
    ExpectTwoAndFourRanksFindWhatOneFinds<Rank>(shape, name);
}

TEST(ModelShareTest, RanksThatShareOutBatchesHaveTheSameShares) {
  ExpectGroupsThatShareOutBatchesFindWhatOneFinds<Rank>(Shapes()[1].second, {0, 1, 2, 3});
}

// Forward and backward of every branch, the embedding and the head add up once; of a scored token
// there are three numbers, and of the norm one.
TEST(ModelShareTest, BytesSentAreThoseOfTheTheory) {
  const ModelShape shape = Shapes()[0].second;
  int64_t tokens = 0, rows = 0;
  for (const auto& d : RandomDemonstrations(9, 5)) {
    tokens += static_cast<int64_t>(d.tokens.size());
    for (size_t i = 1; i < d.tokens.size(); ++i) rows += d.loss_mask[i] != 0;
  }
  for (const int size : {2, 4}) {
    AsRanks(size, [&](Ranks* ranks) {
      Rank rank(ranks, size, shape);
      const int64_t before = ranks->sent_bytes();
      const double loss = rank.Accumulate();
      const int64_t laid = tokens - rank.train->TakeSharedTokens();
      const int64_t numbers =
          (2 * shape.layers + 1 + 2 * shape.layers) * laid * shape.hidden + rows * shape.hidden;
      rank.optimizer->Update(1e-3, loss);
      EXPECT_EQ(ranks->sent_bytes() - before,
                2 * 4 * numbers * (size - 1) / size + 12 * rows * (size - 1) + 8 * (size - 1));
    });
  }
}

TEST(ModelShareTest, BFloat16IsNear) { ExpectBFloat16IsNear<Rank>(Shapes()[1].second); }

// What one rank cannot update none does, wherever the number stands.
TEST(ModelShareTest, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[0].second);
    ExpectAnUpdateThatOneCannotMakeIsMadeByNone(
        rank, ranks, [](Rank& r) { return r.weights().table().layer(0).qkv; });
  });
}

TEST(ModelShareTest, AShareThatDiffersIsNamed) {
  const auto thrown = TryAsRanks(4, [](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[0].second);
    // A norm, which all have; then a share, which two have.
    if (ranks->rank() == 3) rank.weights().flat().f32()[0] = 7;
    rank.optimizer->CheckShare("the weights after step 4");
  });
  EXPECT_TRUE(thrown[3] && thrown[1]) << "those that have the same share";
}

// A checkpoint has whole tensors: what two ranks wrote one rank goes on with, and the other way.
TEST(ModelShareTest, CheckpointsKnowNothingOfShares) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    ExpectCheckpointsThatKnowNothingOfRanks<Rank>(Shapes()[1].second, dtype);
}

TEST(ModelShareTest, WhatHasNoSharesIsRefused) {
  AsRanks(2, [](Ranks* ranks) {
    Weights whole(Shapes()[0].second, Device::kCpu, DType::kFloat32);
    ModelShare share(*ranks, whole);
    const auto error = [&](const configs::OptimizerConfig& options) {
      return WhyNoOptimizer(share, options);
    };
    EXPECT_NE(error({.moments = configs::Moments::kInt8}).find("int8"), std::string::npos);
    EXPECT_NE(error({.name = configs::OptimizerName::kMuon}).find("muon"), std::string::npos);
    EXPECT_EQ(error({}), "");
    whole.AddAdapter({.rank = 2}, 1);
    EXPECT_THROW(ModelShare(*ranks, whole), Error);
  });
}

}  // namespace
}  // namespace plumb::learner
