// Ranks that compute one model together against one rank: losses, gradients, weights and bytes of
// updates (learner/update/shares/model_share.h), and files that know nothing of ranks.
#include "learner/update/shares/model_share.h"

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
  std::unique_ptr<ModelShare> share;
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
  const auto& entries = rank.weights().table().entries();
  auto& state = rank.optimizer->sets().front();
  for (size_t i = 0; i < entries.size() && !state.grad_in_parts; ++i) {
    const std::vector<float> own = Floats(state.grad, entries[i].offset, entries[i].elements);
    if (!rank.share) {
      Append(seen.gradient, own);
      continue;
    }
    std::vector<float> all(static_cast<size_t>(rank.share->WholeEntry(i).elements));
    rank.share->Join(i, sizeof(float), std::as_bytes(std::span(own)),
                     std::as_writable_bytes(std::span(all)));
    Append(seen.gradient, all);
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

TEST(ModelShareTest, TwoAndFourRanksFindWhatOneRankFinds) {
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

TEST(ModelShareTest, RanksThatShareOutBatchesHaveTheSameShares) {
  const ModelShape shape = Shapes()[1].second;
  Seen one;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape);
    one = UpdateAs(rank, nullptr);
  });
  for (const int64_t zero : {0, 1, 2, 3}) {
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

TEST(ModelShareTest, BFloat16IsNear) {
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
TEST(ModelShareTest, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
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
  const ModelShape shape = Shapes()[1].second;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
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

TEST(ModelShareTest, WhatHasNoSharesIsRefused) {
  AsRanks(2, [](Ranks* ranks) {
    Weights whole(Shapes()[0].second, Device::kCpu, DType::kFloat32);
    ModelShare share(*ranks, whole);
    const auto error = [&](const configs::OptimizerConfig& options) {
      try {
        Optimizer optimizer(share.weights(), options, {}, {.share = &share});
      } catch (const Error& e) {
        return std::string(e.what());
      }
      return std::string();
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
