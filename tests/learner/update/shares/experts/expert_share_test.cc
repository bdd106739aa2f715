// Ranks that share out experts against one rank: losses, gradients, weights, load and bytes of
// updates (learner/update/shares/experts, learner/update/optimizer_experts.cc), and files that know
// nothing of ranks.
#include "learner/update/shares/experts/expert_share.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "learner/update/expert_balance.h"
#include "policy_model/families/experts/expert_share.h"
#include "tests/learner/shared_update.h"

namespace plumb::learner {
namespace {

using policy_model::ModelShape;
using policy_model::Transformer;
using policy_model::Weights;

std::vector<std::pair<std::string, ModelShape>> Shapes() {
  ModelShape plain = TinyShape();
  plain.family = "plumb";
  plain.layers = 3;
  plain.experts.count = 4;
  plain.experts.widths = {24};
  plain.experts.per_token = 2;
  ModelShape shared = plain;  // a shared part with a gate, a dense layer, groups and a moved bias
  shared.experts.shared_ffn = 16;
  shared.experts.shared_gate = true;
  shared.experts.dense = {1, 0, 0};
  shared.experts.sigmoid = true;
  shared.experts.bias = true;
  shared.experts.groups = 2;
  shared.tied = false;
  ModelShape biased = plain;  // experts with biases and a gated unit that is clamped
  biased.family = "gpt_oss";
  biased.attention_bias = biased.output_bias = biased.sinks = true;
  biased.experts.widths = {48};
  biased.experts.biased = true;
  biased.experts.fused = true;
  biased.experts.glu_alpha = 1.702;
  biased.experts.glu_limit = 7;
  return {{"plain", plain}, {"shared", shared}, {"biased", biased}};
}

struct How {
  int ep = 1;
  int64_t zero = 0, sync_every = 1, micro_batch = 64;
  DType dtype = DType::kFloat32;
  bool recompute = false;
  double bias_rate = 0, clip_value = 0;
};

// A rank's life: its groups, its share, and what trains.
struct Rank {
  Rank(Ranks* ranks, const ModelShape& shape, const How& how)
      : experts(ranks, how.ep, ranks ? ranks->size() : 1), whole(shape, Device::kCpu, how.dtype) {
    whole.Initialise(3, 0.2);
    share = MakeExpertShare(experts, whole, ModelShare::Whole::kComesAndGoes);
    transformer = std::make_unique<Transformer>(weights().shape(), Device::kCpu, how.dtype);
    transformer->SetExpertGroup(experts.exchange());
    transformer->RecomputeLayers(how.recompute);
    train = std::make_unique<TrainStep>(*transformer, how.micro_batch, ranks);
    configs::Config config;
    config.run.zero = ranks ? how.zero : 0;
    config.experts.sync_every = how.sync_every;
    config.experts.bias_rate = how.bias_rate;
    config.optimizer.learning_rate = 1e-3;
    config.optimizer.clip_value = how.clip_value;
    optimizer = std::make_unique<Optimizer>(weights(), config.optimizer, TrainingRules{},
                                            SharingOf(config, ranks, share.get(), experts));
    train->UsePartsOf(weights(), *optimizer);
    balance =
        std::make_unique<ExpertBalance>(config.experts, 1, *transformer, weights(), *optimizer);
    if (share) share->Spread();
  }
  Weights& weights() { return share ? share->weights() : whole; }

  double Accumulate(std::vector<float>* results = nullptr, int demonstrations = 9,
                    uint64_t seed = 5) {
    return AccumulateLoss(*train, weights(), *optimizer, results, demonstrations, seed);
  }
  std::vector<float> AllWeights() {
    optimizer->GatherWeights();
    return AllOf(whole);
  }

  ExpertRanks experts;
  Weights whole;
  std::unique_ptr<ModelShare> share;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<TrainStep> train;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<ExpertBalance> balance;
};

Seen UpdateAs(Rank& rank, int updates = 3) {
  Seen seen;
  rank.balance->Begin(ExpertBalance::Phase::kTraining, 0);
  seen.loss = rank.Accumulate(&seen.results);
  const UpdateResult update = rank.optimizer->Update(1e-3, seen.loss);
  EXPECT_TRUE(update.applied);
  rank.balance->End(seen.load);
  seen.norm = update.grad_norm;
  seen.gradient = JoinedGradient(rank);
  for (int i = 1; i < updates; ++i)
    EXPECT_TRUE(rank.optimizer->Update(1e-3, rank.Accumulate()).applied);
  seen.weights = rank.AllWeights();
  return seen;
}

// To the bit on all ranks, which therefore decide alike.
void ExpectAlike(const std::vector<Seen>& all) {
  for (const Seen& seen : all) {
    EXPECT_EQ(seen.loss, all[0].loss);
    EXPECT_EQ(seen.norm, all[0].norm);
    EXPECT_EQ(seen.results, all[0].results);
    EXPECT_EQ(seen.weights, all[0].weights);
    EXPECT_EQ(seen.load, all[0].load);
  }
}

Seen OneRank(const ModelShape& shape, const How& how = {}) {
  Seen one;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, shape, how);
    one = UpdateAs(rank);
  });
  return one;
}

TEST(ExpertShareTest, TwoAndFourRanksFindWhatOneRankFinds) {
  for (const auto& [name, shape] : Shapes()) {
    const double rate = shape.experts.bias ? 0.01 : 0;
    const Seen one = OneRank(shape, {.bias_rate = rate});
    for (const int size : {2, 4}) {
      std::vector<Seen> all(static_cast<size_t>(size));
      AsRanks(size, [&, shape = shape](Ranks* ranks) {
        Rank rank(ranks, shape, {.ep = size, .recompute = size == 4, .bias_rate = rate});
        all[static_cast<size_t>(ranks->rank())] = UpdateAs(rank);
        rank.optimizer->CheckShare("the weights");
      });
      for (const Seen& seen : all) {
        ExpectSame(one, seen, name + " " + std::to_string(size));
        for (const auto& [metric, value] : one.load) {
          if (metric == "moe/aux_loss") continue;  // of the load of each micro-batch
          EXPECT_NEAR(seen.load.at(metric), value, 1e-5 * (1 + std::abs(value)))
              << name << " " << metric;
        }
      }
      ExpectAlike(all);
    }
  }
}

// Four ranks in two groups, whether they keep parts of what updates the rest or not.
TEST(ExpertShareTest, RanksWithTheSameExpertsAddTheirGradientsUp) {
  const ModelShape shape = Shapes()[0].second;
  for (const double clip : {0.0, 0.02}) {
    const Seen one = OneRank(shape, {.clip_value = clip});
    for (const int64_t zero : {0, 1}) {
      std::vector<Seen> all(4);
      AsRanks(4, [&](Ranks* ranks) {
        Rank rank(ranks, shape, {.ep = 2, .zero = zero, .clip_value = clip});
        Seen& seen = all[static_cast<size_t>(ranks->rank())];
        seen = UpdateAs(rank);
        if (zero > 0) seen.gradient.clear();  // each has the sums of its part
        const auto& state = rank.optimizer->sets().front();
        int64_t experts = 0;
        for (const auto& entry : rank.whole.table().entries())
          experts += policy_model::IsOfExperts(entry) ? entry.elements : 0;
        EXPECT_EQ(state.set->table->parameters(), rank.whole.table().parameters() - experts / 2);
        if (zero > 0) {
          EXPECT_LT(state.kept_elements(), state.set->flat.elements() / 2);
        }
      });
      for (const Seen& seen : all) ExpectSame(one, seen, "zero " + std::to_string(zero));
      ExpectAlike(all);
    }
  }
}

// Where one rank has no micro-batch in a round it still computes what the others send its experts,
// forward and backward, whether layers are computed again or not.
TEST(ExpertShareTest, ARankWithoutABatchComputesForTheOthers) {
  const ModelShape shape = Shapes()[1].second;
  for (const bool recompute : {false, true}) {
    Seen one, of_rank;
    const auto pass = [&](Rank& rank, Seen& seen) {
      seen.loss = rank.Accumulate(&seen.results, /*demonstrations=*/1);
      seen.norm = rank.optimizer->Update(1e-3, seen.loss).grad_norm;
      seen.weights = rank.AllWeights();
    };
    AsRanks(1, [&](Ranks*) {
      Rank rank(nullptr, shape, {});
      pass(rank, one);
    });
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, shape, {.ep = 4, .recompute = recompute});
      Seen seen;
      pass(rank, seen);
      if (ranks->rank() == 3) of_rank = seen;
    });
    ExpectSame(one, of_rank, "one sequence");
  }
}

// A row of hidden numbers goes to a remote expert and comes back, and so does its gradient, with
// the weight there and that's derivative back; of each layer and pass the counts go first.
TEST(ExpertShareTest, BytesSentAreThoseOfTheTheory) {
  const ModelShape shape = Shapes()[0].second;
  for (const bool recompute : {false, true}) {
    for (const int size : {2, 4}) {
      std::vector<int64_t> sent(static_cast<size_t>(size)), remote(sent.size()), came(sent.size());
      std::vector<std::vector<int64_t>> to(sent.size());
      AsRanks(size, [&](Ranks* ranks) {
        Rank rank(ranks, shape, {.ep = size, .micro_batch = 1000, .recompute = recompute});
        const auto own = static_cast<size_t>(ranks->rank());
        rank.Accumulate();  // one round: a micro-batch each
        sent[own] = rank.experts.Take().bytes;
        // Where the tokens of the batch went, from what the routers chose.
        to[own].assign(sent.size(), 0);
        for (const int32_t expert : rank.transformer->experts())
          ++to[own][static_cast<size_t>(expert) / (4 / sent.size())];
      });
      const int64_t h = shape.hidden, forwards = recompute ? 2 : 1;
      for (size_t r = 0; r < sent.size(); ++r) {
        int64_t goes = 0, comes = 0;
        for (size_t peer = 0; peer < sent.size(); ++peer) {
          goes += peer == r ? 0 : to[r][peer];
          comes += peer == r ? 0 : to[peer][r];
        }
        const int64_t counts = forwards * shape.layers * 4 * (4 - 4 / size);
        // Rows and their gradients go; what experts give, and gradients of what they were given,
        // go back.
        EXPECT_EQ(sent[r],
                  counts + forwards * 4 * h * (goes + comes) + (4 * h + 4) * (goes + comes))
            << size << " " << r;
        EXPECT_GT(goes, 0);
      }
    }
  }
}

TEST(ExpertShareTest, BFloat16IsNear) {
  const ModelShape shape = Shapes()[0].second;
  const Seen one = OneRank(shape, {.dtype = DType::kBFloat16});
  Seen two;
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, shape, {.ep = 2, .dtype = DType::kBFloat16});
    const Seen seen = UpdateAs(rank);
    if (ranks->first()) two = seen;
  });
  EXPECT_NEAR(two.loss, one.loss, 1e-2 * std::abs(one.loss));
  EXPECT_LT(Apart(one.gradient, two.gradient), 0.1);
}

// What one rank cannot update none does, wherever the number stands.
TEST(ExpertShareTest, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
  for (const int64_t sync_every : {1, 2}) {
    AsRanks(2, [&](Ranks* ranks) {
      Rank rank(ranks, Shapes()[0].second, {.ep = 2, .sync_every = sync_every});
      ExpectAnUpdateThatOneCannotMakeIsMadeByNone(
          rank, ranks, [](Rank& r) { return r.weights().table().layer(0).experts_gate_up; });
      for (int i = 0; i < 2; ++i)
        EXPECT_TRUE(rank.optimizer->Update(1e-3, rank.Accumulate()).applied);
    });
  }
}

TEST(ExpertShareTest, AShareThatDiffersIsNamed) {
  for (const bool of_experts : {false, true}) {
    const auto thrown = TryAsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, Shapes()[0].second, {.ep = 2});
      const int64_t at = of_experts ? rank.weights().table().layer(1).experts_gate_up : 0;
      if (ranks->rank() == 3) rank.weights().flat().f32()[at] = 7;
      rank.optimizer->CheckShare("the weights after step 4");
    });
    EXPECT_TRUE(thrown[3] && thrown[1]) << "those that have the same experts";
  }
}

// A checkpoint has whole tensors: what four ranks wrote one rank goes on with, and the other way.
// Gradients of experts that wait for their update are in it.
TEST(ExpertShareTest, CheckpointsKnowNothingOfShares) {
  const ModelShape shape = Shapes()[2].second;
  const auto save = [&](Rank& rank, Ranks* ranks, const std::string& to) {
    rank.optimizer->FoldResiduals();
    SaveWhole(rank, ranks, to);
    if (rank.share) rank.share->Spread();
  };
  const auto load = [&](Rank& rank, const std::string& from) { LoadWhole(rank, from, 3); };
  const auto go_on = [&](Rank& rank) {
    for (int i = 0; i < 3; ++i) rank.optimizer->Update(1e-3, rank.Accumulate());
    return rank.AllWeights();
  };
  for (const auto& [dtype, sync_every] :
       {std::pair{DType::kFloat32, int64_t{2}}, {DType::kBFloat16, int64_t{1}}}) {
    const testing::TempFolder folder;
    std::vector<float> one, two, four, again;
    AsRanks(4, [&, dtype = dtype, sync_every = sync_every](Ranks* ranks) {
      Rank rank(ranks, shape, {.ep = 2, .zero = 1, .sync_every = sync_every, .dtype = dtype});
      UpdateAs(rank);
      save(rank, ranks, folder / "four");
      const auto then = go_on(rank);
      if (ranks->first()) four = then;
    });
    AsRanks(1, [&, dtype = dtype, sync_every = sync_every](Ranks*) {
      Rank rank(nullptr, shape, {.sync_every = sync_every, .dtype = dtype});
      load(rank, folder / "four");
      save(rank, nullptr, folder / "one");
      one = go_on(rank);
    });
    AsRanks(2, [&, dtype = dtype, sync_every = sync_every](Ranks* ranks) {
      Rank rank(ranks, shape, {.ep = 2, .sync_every = sync_every, .dtype = dtype});
      load(rank, folder / "four");
      const auto then = go_on(rank);
      if (ranks->first()) two = then;
    });
    const double near = dtype == DType::kFloat32 ? 1e-5 : 1e-2;
    EXPECT_LT(Apart(one, four), near) << sync_every;
    EXPECT_LT(Apart(two, four), near) << sync_every;
    // Back again: the same bits.
    AsRanks(4, [&, dtype = dtype, sync_every = sync_every](Ranks* ranks) {
      Rank rank(ranks, shape, {.ep = 2, .zero = 1, .sync_every = sync_every, .dtype = dtype});
      load(rank, folder / "one");
      const auto then = go_on(rank);
      if (ranks->first()) again = then;
    });
    EXPECT_EQ(again, four) << sync_every;
  }
}

// Experts that are summed at every third update only: between two sums they stay, and what ranks
// send is less by their gradients; two ranks train what one does.
TEST(ExpertShareTest, ExpertsThatAreSummedLessOftenSaveBytes) {
  const ModelShape shape = Shapes()[0].second;
  for (const int64_t zero : {0, 1}) {
    std::vector<float> one, apart;
    std::vector<int64_t> each(4);
    const auto train = [&](Rank& rank, Ranks* ranks) {
      const auto of_experts = [&] {
        return Floats(rank.weights().flat(), rank.weights().table().layer(2).experts_gate_up, 24);
      };
      for (int i = 0; i < 6; ++i) {
        const auto before = of_experts();
        const double loss = rank.Accumulate(nullptr, 9, static_cast<uint64_t>(i));
        const int64_t sent = ranks ? ranks->sent_bytes() : 0;
        EXPECT_TRUE(rank.optimizer->Update(1e-3, loss).applied);
        if (ranks && ranks->first() && i < 4)
          each[static_cast<size_t>(i)] = ranks->sent_bytes() - sent;
        EXPECT_EQ(before != of_experts(), i % 3 == 2) << i;
      }
      return rank.AllWeights();
    };
    AsRanks(1, [&](Ranks*) {
      Rank rank(nullptr, shape, {.sync_every = 3});
      one = train(rank, nullptr);
    });
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, shape, {.ep = 2, .zero = zero, .sync_every = 3});
      const auto seen = train(rank, ranks);
      rank.optimizer->CheckShare("the weights");
      if (ranks->first()) apart = seen;
      // Of two ranks with the same experts each sends gradients down and sums, or weights, back.
      int64_t elements = 0;
      const auto& entries = rank.weights().table().entries();
      for (size_t i = 0; i < entries.size(); ++i) {
        if (!policy_model::IsOfExperts(entries[i])) continue;
        elements += entries[i + 1].offset - entries[i].offset;
      }
      if (!ranks->first()) return;
      const int64_t rest = each[0], with = each[2];
      EXPECT_EQ(each[1], rest);
      EXPECT_EQ(each[3], rest);
      // Where they are not summed the ranks say whether what waits is finite instead.
      EXPECT_EQ(with - rest, 8 * elements / 2 - 8 * 3);
    });
    EXPECT_LT(Apart(one, apart), 1e-5) << zero;
  }
}

// At every update: the bits of ranks that know nothing of it.
TEST(ExpertShareTest, ExpertsThatAreSummedAtEveryUpdateAreAsEver) {
  const ModelShape shape = Shapes()[1].second;
  std::vector<Seen> all(2);
  AsRanks(2, [&](Ranks* ranks) {
    {
      Rank rank(ranks, shape, {.zero = 1, .sync_every = 1});
      all[static_cast<size_t>(ranks->rank())] = UpdateAs(rank);
    }
    Rank rank(ranks, shape, {.zero = 1});
    rank.optimizer =
        std::make_unique<Optimizer>(rank.weights(), configs::OptimizerConfig{.learning_rate = 1e-3},
                                    TrainingRules{}, Sharing{.ranks = ranks, .zero = 1});
    rank.train->UsePartsOf(rank.weights(), *rank.optimizer);
    rank.balance = std::make_unique<ExpertBalance>(configs::ExpertsConfig{}, 1, *rank.transformer,
                                                   rank.weights(), *rank.optimizer);
    const Seen seen = UpdateAs(rank);
    EXPECT_EQ(seen.weights, all[static_cast<size_t>(ranks->rank())].weights);
    EXPECT_EQ(seen.norm, all[static_cast<size_t>(ranks->rank())].norm);
  });
}

TEST(ExpertShareTest, WhatHasNoSharesIsRefused) {
  AsRanks(2, [](Ranks* ranks) {
    ExpertRanks experts(ranks, 2, 2);
    Weights dense(TinyShape(), Device::kCpu, DType::kFloat32);
    EXPECT_THROW(ExpertShare(experts, dense, ModelShare::Whole::kStays), Error);
    Weights whole(Shapes()[0].second, Device::kCpu, DType::kFloat32);
    ExpertShare share(experts, whole, ModelShare::Whole::kStays);
    const auto error = [&](const configs::OptimizerConfig& options) {
      return WhyNoOptimizer(share, options);
    };
    EXPECT_NE(
        error({.moments = configs::Moments::kInt8}).find("asks for ep, and optimizer.moments"),
        std::string::npos);
    EXPECT_EQ(error({}), "");
    whole.AddAdapter({.rank = 2}, 1);
    EXPECT_THROW(ExpertShare(experts, whole, ModelShare::Whole::kStays), Error);
  });
}

}  // namespace
}  // namespace plumb::learner
