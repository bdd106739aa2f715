// Ranks that have a stage of a model each against one rank: losses, gradients, weights and bytes of
// updates (learner/update/stages/model_stage.h), and files that know nothing of stages.
#include "learner/update/stages/model_stage.h"

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
  tied.layers = 5;
  ModelShape apart = tied;
  apart.family = "qwen3";
  apart.tied = false;
  apart.vocab = 20;
  apart.unused_tokens = {1, 19};
  ModelShape behind = tied;  // norms behind branches, scaled embeddings, windows
  behind.family = "gemma3_text";
  behind.window = 4;
  behind.sliding = {1, 1, 0, 1, 0};
  ModelShape large = apart;  // the head is one kernel
  large.vocab = 4 * 4096;
  large.unused_tokens = {4097, 16383};
  return {{"tied", tied}, {"apart", apart}, {"behind", behind}, {"large", large}};
}

constexpr int64_t kMicroBatch = 24;  // tokens: several micro-batches are under way

// A rank's life: its grid, its stage, and what trains.
struct Rank {
  Rank(Ranks* ranks, int pp, const ModelShape& shape, DType dtype = DType::kFloat32,
       int64_t zero = 0, bool recompute = false)
      : grid(ranks, 1, 1, pp), whole(shape, Device::kCpu, dtype) {
    whole.Initialise(3, 0.2);
    if (grid.stages()) share = std::make_unique<ModelStage>(*grid.stages(), whole);
    transformer = std::make_unique<Transformer>(weights().shape(), Device::kCpu, dtype);
    transformer->RecomputeLayers(recompute);
    train = std::make_unique<TrainStep>(*transformer, kMicroBatch, grid.data());
    optimizer = std::make_unique<Optimizer>(
        weights(), configs::OptimizerConfig{.learning_rate = 1e-3}, TrainingRules{},
        Sharing{.ranks = grid.data(), .zero = grid.data() ? zero : 0, .share = share.get()});
    train->UsePartsOf(weights(), *optimizer);
    train->UsePipeline(PipelineOf(share.get()), recompute);
    if (share) share->Spread();
  }
  Weights& weights() { return share ? share->weights() : whole; }

  double Accumulate(std::vector<float>* results = nullptr) {
    return AccumulateLoss(*train, weights(), *optimizer, results);
  }

  RankGrid grid;
  Weights whole;
  std::unique_ptr<ModelStage> share;
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
  const Optimizer::SetState& state = rank.optimizer->sets().front();
  for (size_t i = 0; i < rank.whole.table().entries().size(); ++i) {
    const policy_model::TensorEntry& entry = rank.whole.table().entries()[i];
    const policy_model::TensorEntry* here = rank.share ? rank.share->Own(i) : &entry;
    std::vector<float> own, all(static_cast<size_t>(entry.elements));
    if (here) own = Floats(state.grad, here->offset, here->elements);
    if (rank.share)
      rank.share->Join(i, sizeof(float), std::as_bytes(std::span(own)),
                       std::as_writable_bytes(std::span(all)));
    Append(seen.gradient, rank.share ? all : own);
  }
  for (int i = 1; i < updates; ++i)
    EXPECT_TRUE(rank.optimizer->Update(1e-3, rank.Accumulate()).applied);
  rank.optimizer->GatherWeights();
  seen.weights = AllOf(rank.whole);
  return seen;
}

TEST(ModelStageTest, TwoAndFourRanksFindWhatOneRankFinds) {
  for (const auto& [name, shape] : Shapes())
    ExpectTwoAndFourRanksFindWhatOneFinds<Rank>(shape, name);
}

TEST(ModelStageTest, RanksThatShareOutBatchesHaveTheSameStages) {
  ExpectGroupsThatShareOutBatchesFindWhatOneFinds<Rank>(Shapes()[1].second, {0, 1});
}

// A pipeline without a micro-batch in a round hears what the other found.
TEST(ModelStageTest, OneSequenceIsTheWorkOfOnePipeline) {
  const ModelShape shape = Shapes()[0].second;
  const auto data = RandomDemonstrations(1, 5);
  const SequenceView view{data[0].tokens, data[0].loss_mask};
  const auto live = [&](Rank& rank, std::vector<float>& scores, std::vector<float>& seen) {
    scores = rank.train->Score(rank.weights(), std::span(&view, 1), 1.0f)[0];
    rank.optimizer->ZeroGrad();
    rank.train->Accumulate(
        rank.weights(), std::span(&view, 1), 1.0f,
        [&](const ScoredToken& t) {
          seen.push_back(t.logprob);
          return TrainStep::Gradient{-1.0f, 0};
        },
        rank.optimizer->gradients());
    return rank.optimizer->Update(1e-3, 1).grad_norm;
  };
  std::vector<float> scores, seen;
  double norm = 0;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape);
    norm = live(rank, scores, seen);
  });
  AsRanks(4, [&](Ranks* ranks) {
    Rank rank(ranks, 2, shape);
    std::vector<float> own_scores, own_seen;
    EXPECT_NEAR(live(rank, own_scores, own_seen), norm, 1e-5 * norm);
    EXPECT_LT(Apart(scores, own_scores), 1e-6);
    EXPECT_LT(Apart(seen, own_seen), 1e-6);
  });
}

// A hand-over is what a layer gives of every token, and its gradient back; the last stage tells
// what it found of scored tokens; the ends add up an embedding that both have; and there is the
// norm.
TEST(ModelStageTest, BytesSentAreThoseOfTheTheory) {
  int64_t tokens = 0, rows = 0;
  for (const auto& d : RandomDemonstrations(9, 5)) {
    tokens += static_cast<int64_t>(d.tokens.size());
    for (size_t i = 1; i < d.tokens.size(); ++i) rows += d.loss_mask[i] != 0;
  }
  for (const bool tied : {true, false}) {
    const ModelShape shape = Shapes()[tied ? 0 : 1].second;
    for (const int size : {2, 4}) {
      AsRanks(size, [&](Ranks* ranks) {
        Rank rank(ranks, size, shape);
        const int64_t before = ranks->sent_bytes();
        const double loss = rank.Accumulate();
        const int64_t laid = tokens - rank.train->TakeSharedTokens();
        rank.optimizer->Update(1e-3, loss);
        const bool first = ranks->first(), last = ranks->rank() + 1 == size;
        int64_t expected = (first || last ? 1 : 2) * laid * shape.hidden * 4 + 8 * (size - 1);
        if (last) expected += 2 * 4 * rows * (size - 1);  // log-probs and entropies
        if (tied && (first || last)) expected += 4 * shape.vocab * shape.hidden;
        EXPECT_EQ(ranks->sent_bytes() - before, expected) << ranks->rank() << " of " << size;
        std::map<std::string, double> metrics;
        rank.share->AddTimes(metrics);
        EXPECT_GT(metrics.at("time/pipeline_wait"), 0);
      });
    }
  }
}

TEST(ModelStageTest, BFloat16IsNear) { ExpectBFloat16IsNear<Rank>(Shapes()[1].second); }

// What one rank cannot update none does, wherever the number stands.
TEST(ModelStageTest, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[0].second);
    ExpectAnUpdateThatOneCannotMakeIsMadeByNone(
        rank, ranks, [](Rank& r) { return r.weights().table().layer(0).qkv; });
  });
}

TEST(ModelStageTest, AStageThatDiffersIsNamed) {
  // Ranks 2 and 3 have the same stage.
  auto thrown = TryAsRanks(4, [](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[1].second);
    if (ranks->rank() == 3) rank.weights().flat().f32()[0] = 7;
    rank.optimizer->CheckShare("the weights after step 4");
  });
  EXPECT_TRUE(thrown[3] && thrown[2]) << "those that have the same stage";
  // Both ends have the embedding.
  thrown = TryAsRanks(2, [](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[0].second);
    rank.optimizer->CheckShare("the weights before step 4");
    if (!ranks->first()) rank.weights().flat().f32()[rank.weights().table().embedding()] = 7;
    rank.optimizer->CheckShare("the weights after step 4");
  });
  for (const auto& each : thrown) {
    ASSERT_TRUE(each);
    try {
      std::rethrow_exception(each);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("after step 4 of the embedding"), std::string::npos)
          << e.what();
    }
  }
}

// A checkpoint has whole tensors: what two ranks wrote one rank goes on with, and the other way.
TEST(ModelStageTest, CheckpointsKnowNothingOfStages) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const ModelShape shape = Shapes()[dtype == DType::kFloat32 ? 0 : 1].second;
    ExpectCheckpointsThatKnowNothingOfRanks<Rank>(shape, dtype);
  }
}

TEST(ModelStageTest, WhatHasNoStagesIsRefused) {
  AsRanks(2, [](Ranks* ranks) {
    Weights whole(Shapes()[0].second, Device::kCpu, DType::kFloat32);
    ModelStage stage(*ranks, whole);
    EXPECT_EQ(PipelineOf(&stage), &stage.pipeline());
    EXPECT_EQ(stage.group(), nullptr);
    const auto error = [&](const configs::OptimizerConfig& options) {
      return WhyNoOptimizer(stage, options);
    };
    EXPECT_NE(error({.moments = configs::Moments::kInt8}).find("asks for pp, and"),
              std::string::npos);
    EXPECT_EQ(error({}), "");
    whole.AddAdapter({.rank = 2}, 1);
    EXPECT_THROW(ModelStage(*ranks, whole), Error);
  });
}

}  // namespace
}  // namespace plumb::learner
