// Ranks that have a stage of a model each against one rank: losses, gradients, weights and bytes of
// updates (learner/update/stages/model_stage.h), and files that know nothing of stages.
#include "learner/update/stages/model_stage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "learner/ranks/rank_grid.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

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

struct Seen {
  double loss = 0, norm = 0;
  std::vector<float> results;   // log-probs and entropies
  std::vector<float> gradient;  // whole, without padding
  std::vector<float> weights;   // whole, after the updates
  int64_t sent = 0;             // by the first pass and update
};

std::vector<float> Floats(const policy_model::FlatBuffer& flat, int64_t offset, int64_t n) {
  std::vector<std::byte> bytes(static_cast<size_t>(n) * ElementSize(flat.dtype()));
  flat.CopyToHost(bytes, offset);
  std::vector<float> out(static_cast<size_t>(n));
  policy_model::ConvertToFloat(bytes.data(), flat.dtype(), out);
  return out;
}

void Append(std::vector<float>& to, const std::vector<float>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

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
    const auto data = RandomDemonstrations(9, 5);
    std::vector<SequenceView> views;
    for (const auto& d : data) views.push_back({d.tokens, d.loss_mask});
    double loss = 0;
    optimizer->ZeroGrad();
    train->Accumulate(
        weights(), views, 0.9f,
        [&](const ScoredToken& t) {
          loss -= t.logprob + 0.01f * t.entropy;
          if (results) results->insert(results->end(), {t.logprob, t.entropy});
          return TrainStep::Gradient{-1.0f / 64, -0.01f / 64};
        },
        optimizer->gradients());
    return loss;
  }

  RankGrid grid;
  Weights whole;
  std::unique_ptr<ModelStage> share;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<TrainStep> train;
  std::unique_ptr<Optimizer> optimizer;
};

Seen UpdateAs(Rank& rank, Ranks* ranks, int updates = 2) {
  Seen seen;
  const int64_t before = ranks ? ranks->sent_bytes() : 0;
  seen.loss = rank.Accumulate(&seen.results);
  const UpdateResult update = rank.optimizer->Update(1e-3, seen.loss);
  EXPECT_TRUE(update.applied);
  seen.sent = ranks ? ranks->sent_bytes() - before : 0;
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
  for (const auto& entry : rank.whole.table().entries())
    Append(seen.weights, Floats(rank.whole.flat(), entry.offset, entry.elements));
  return seen;
}

double Apart(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double norm = 0, difference = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    norm += std::pow(static_cast<double>(a[i]), 2);
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

void ExpectSame(const Seen& one, const Seen& seen, const std::string& what) {
  EXPECT_NEAR(seen.loss, one.loss, 1e-6 * std::abs(one.loss)) << what;
  EXPECT_NEAR(seen.norm, one.norm, 1e-5 * one.norm) << what;
  EXPECT_LT(Apart(one.results, seen.results), 1e-6) << what;
  if (!seen.gradient.empty()) {
    EXPECT_LT(Apart(one.gradient, seen.gradient), 1e-5) << what;
  }
  EXPECT_LT(Apart(one.weights, seen.weights), 1e-5) << what;
}

TEST(ModelStageTest, TwoAndFourRanksFindWhatOneRankFinds) {
  for (const auto& [name, shape] : Shapes()) {
    Seen one;
    AsRanks(1, [&, shape = shape](Ranks*) {
      Rank rank(nullptr, 1, shape);
      one = UpdateAs(rank, nullptr);
    });
    for (const int size : {2, 4}) {
      std::vector<Seen> all(static_cast<size_t>(size));
      AsRanks(size, [&, shape = shape](Ranks* ranks) {
        Rank rank(ranks, size, shape, DType::kFloat32, 0, /*recompute=*/size == 4);
        all[static_cast<size_t>(ranks->rank())] = UpdateAs(rank, ranks);
        rank.optimizer->CheckShare("the weights");
      });
      for (const Seen& seen : all) {
        ExpectSame(one, seen, name + " " + std::to_string(size));
        // To the bit on all ranks, which therefore decide alike.
        EXPECT_EQ(seen.loss, all[0].loss);
        EXPECT_EQ(seen.norm, all[0].norm);
        EXPECT_EQ(seen.results, all[0].results);
        EXPECT_EQ(seen.weights, all[0].weights);
      }
    }
  }
}

TEST(ModelStageTest, RanksThatShareOutBatchesHaveTheSameStages) {
  const ModelShape shape = Shapes()[1].second;
  Seen one;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape);
    one = UpdateAs(rank, nullptr);
  });
  for (const int64_t zero : {0, 1}) {
    std::vector<Seen> all(4);
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, 2, shape, DType::kFloat32, zero);
      rank.optimizer->SpreadWeights();
      Seen& seen = all[static_cast<size_t>(ranks->rank())];
      seen = UpdateAs(rank, ranks);
      if (zero > 0) seen.gradient.clear();  // each has the sums of its part
    });
    for (const Seen& seen : all) {
      ExpectSame(one, seen, "zero " + std::to_string(zero));
      EXPECT_EQ(seen.loss, all[0].loss);
      EXPECT_EQ(seen.norm, all[0].norm);
      EXPECT_EQ(seen.weights, all[0].weights);
    }
  }
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

TEST(ModelStageTest, BFloat16IsNear) {
  const ModelShape shape = Shapes()[1].second;
  Seen one, two;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape, DType::kBFloat16);
    one = UpdateAs(rank, nullptr);
  });
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, 2, shape, DType::kBFloat16);
    const Seen seen = UpdateAs(rank, ranks);
    if (ranks->first()) two = seen;
  });
  EXPECT_NEAR(two.loss, one.loss, 5e-3 * std::abs(one.loss));
  EXPECT_LT(Apart(one.gradient, two.gradient), 5e-2);
}

// What one rank cannot update none does, wherever the number stands.
TEST(ModelStageTest, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, 2, Shapes()[0].second);
    const double loss = rank.Accumulate();
    const std::string before = rank.weights().ComputeDigest();
    if (ranks->rank() == 1) {
      const int64_t at = rank.weights().table().layer(0).qkv;
      rank.optimizer->grad().f32()[at] = std::numeric_limits<float>::quiet_NaN();
    }
    const UpdateResult update = rank.optimizer->Update(1e-3, loss);
    EXPECT_FALSE(update.applied);
    EXPECT_EQ(update.why_skipped, "the gradient is not finite");
    EXPECT_EQ(rank.weights().ComputeDigest(), before);
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
    const testing::TempFolder folder;
    const auto save = [&](Rank& rank, Ranks* ranks, const std::string& to) {
      rank.optimizer->GatherWeights();
      CheckpointState state{.step = 1,
                            .policy = {.version = 1, .digest = rank.whole.ComputeDigest()},
                            .counters = rank.optimizer->counters(),
                            .moment_steps = rank.optimizer->moment_steps(),
                            .moments = true};
      if (ranks && !ranks->first()) Checkpoints::Give(state, *rank.optimizer);
      else Checkpoints(to, 1, "").Save(state, rank.whole, *rank.optimizer);
      if (ranks) ranks->Barrier();
    };
    const auto load = [&](Rank& rank, const std::string& from) {
      if (rank.share) rank.share->Gather();
      Checkpoints checkpoints(from, 1, "");
      checkpoints.Load(*checkpoints.FindNewest(), rank.whole, *rank.optimizer);
      if (rank.share) rank.share->Spread();
      EXPECT_EQ(rank.optimizer->updates(), 1);
    };
    std::vector<float> one, two, again;
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, 2, shape, dtype, 1);
      UpdateAs(rank, ranks, 1);
      save(rank, ranks, folder / "two");
      rank.share->Spread();
      rank.optimizer->Update(1e-3, rank.Accumulate());
      rank.optimizer->GatherWeights();
      if (ranks->first()) two = Floats(rank.whole.flat(), 0, rank.whole.flat().elements());
    });
    AsRanks(1, [&](Ranks*) {
      Rank rank(nullptr, 1, shape, dtype);
      load(rank, folder / "two");
      save(rank, nullptr, folder / "one");
      rank.optimizer->Update(1e-3, rank.Accumulate());
      one = Floats(rank.whole.flat(), 0, rank.whole.flat().elements());
    });
    const double near = dtype == DType::kFloat32 ? 1e-5 : 1e-2;
    EXPECT_LT(Apart(one, two), near);
    // Back again, from a file of lower halves where the weights are bfloat16: the same bits.
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, 2, shape, dtype, 1);
      load(rank, folder / "one");
      rank.optimizer->Update(1e-3, rank.Accumulate());
      rank.optimizer->GatherWeights();
      if (ranks->first()) again = Floats(rank.whole.flat(), 0, rank.whole.flat().elements());
    });
    EXPECT_EQ(again, two);
  }
}

TEST(ModelStageTest, WhatHasNoStagesIsRefused) {
  AsRanks(2, [](Ranks* ranks) {
    Weights whole(Shapes()[0].second, Device::kCpu, DType::kFloat32);
    ModelStage stage(*ranks, whole);
    EXPECT_EQ(PipelineOf(&stage), &stage.pipeline());
    EXPECT_EQ(stage.group(), nullptr);
    const auto error = [&](const configs::OptimizerConfig& options) {
      try {
        Optimizer optimizer(stage.weights(), options, {}, {.share = &stage});
      } catch (const Error& e) {
        return std::string(e.what());
      }
      return std::string();
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
