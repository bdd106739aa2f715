// run.zero = 2 and 3: what ranks that keep a part each train, what they hold, and what they send.
#include "learner/update/part_keeper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/error.h"
#include "learner/update/train_step.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::ModelShape;
using policy_model::Transformer;
using policy_model::Weights;

struct Case {
  ModelShape shape = TinyShape();
  DType dtype = DType::kFloat32;
  int64_t budget = 32;  // tokens a micro-batch
  bool recompute = false;
  TrainingRules rules = {};
};

struct Seen {
  std::vector<double> losses, norms, scores;
  std::vector<float> weights;
  int64_t sent = 0;  // of the last step
};

Seen TrainAs(Ranks* ranks, const Case& of, int64_t zero) {
  Weights weights(of.shape, Device::kCpu, of.dtype);
  weights.Initialise(3, 0.2);
  Transformer transformer(of.shape, Device::kCpu, of.dtype);
  transformer.RecomputeLayers(of.recompute);
  TrainStep train(transformer, of.budget, ranks);
  Optimizer optimizer(weights, {.learning_rate = 1e-3}, of.rules, {.ranks = ranks, .zero = zero});
  train.UsePartsOf(weights, optimizer);
  optimizer.SpreadWeights();
  EXPECT_EQ(optimizer.weights_spread(), ranks && zero == 3);
  EXPECT_EQ(weights.flat().data() == nullptr, ranks && zero == 3);
  const auto data = RandomDemonstrations(13, 5);
  std::vector<SequenceView> views;
  for (const auto& d : data) views.push_back({d.tokens, d.loss_mask});
  Seen seen;
  for (int step = 0; step < 3; ++step) {
    const int64_t before = ranks ? ranks->sent_bytes() : 0;
    optimizer.ZeroGrad();
    double loss = 0;
    train.Accumulate(
        weights, views, 1.0f,
        [&](const ScoredToken& t) {
          loss -= t.logprob + 0.01f * t.entropy;
          return TrainStep::Gradient{-1.0f / 64, -0.01f / 64};
        },
        optimizer.gradients());
    const UpdateResult update = optimizer.Update(1e-3, loss);
    EXPECT_TRUE(update.applied);
    seen.losses.push_back(loss);
    seen.norms.push_back(update.grad_norm);
    seen.sent = (ranks ? ranks->sent_bytes() : 0) - before;
  }
  // Passes without a backward find the weights, too.
  for (const auto& each : train.Score(weights, views, 1.0f))
    seen.scores.insert(seen.scores.end(), each.begin(), each.end());
  if (ranks && zero > 1) {
    EXPECT_EQ(optimizer.grad().elements(), optimizer.sets().front().kept_elements());
    const auto times = optimizer.TakeBesideTimes();
    EXPECT_TRUE(times && times->busy > 0);
    EXPECT_LT(optimizer.TakeBesideTimes()->busy, 1e-9) << "since the last call";
  }
  optimizer.GatherWeights();
  seen.weights.resize(static_cast<size_t>(weights.flat().elements()));
  std::vector<std::byte> bytes(weights.flat().bytes());
  weights.flat().CopyToHost(bytes);
  policy_model::ConvertToFloat(bytes.data(), of.dtype, seen.weights);
  return seen;
}

void ExpectSame(const Case& of, int size, int64_t zero, double bound) {
  Seen one;
  AsRanks(1, [&](Ranks*) { one = TrainAs(nullptr, of, 0); });
  std::vector<Seen> all(static_cast<size_t>(size));
  AsRanks(size, [&](Ranks* ranks) {
    all[static_cast<size_t>(ranks->rank())] = TrainAs(ranks, of, zero);
  });
  for (const Seen& seen : all) {
    ASSERT_EQ(seen.losses.size(), one.losses.size());
    for (size_t i = 0; i < one.losses.size(); ++i)
      EXPECT_NEAR(seen.losses[i], one.losses[i], bound * std::max(1.0, std::abs(one.losses[i])));
    // Of single tokens, behind three updates.
    ASSERT_EQ(seen.scores.size(), one.scores.size());
    for (size_t i = 0; i < one.scores.size(); ++i)
      EXPECT_NEAR(seen.scores[i], one.scores[i],
                  10 * bound * std::max(1.0, std::abs(one.scores[i])));
    for (size_t i = 0; i < one.norms.size(); ++i)
      EXPECT_NEAR(seen.norms[i], one.norms[i], 10 * bound * one.norms[i]);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < one.weights.size(); ++i) {
      difference += std::pow(static_cast<double>(one.weights[i] - seen.weights[i]), 2);
      norm += std::pow(static_cast<double>(one.weights[i]), 2);
    }
    EXPECT_LT(std::sqrt(difference / norm), 10 * bound) << size << " ranks, zero " << zero;
    EXPECT_EQ(seen.losses, all[0].losses);
    EXPECT_EQ(seen.scores, all[0].scores);
    EXPECT_EQ(seen.weights, all[0].weights) << "the same bits on every rank";
  }
}

TEST(PartKeeperTest, TrainsWhatOneRankTrains) {
  for (const int64_t zero : {2, 3}) {
    for (const int size : {2, 3, 4}) ExpectSame({}, size, zero, 1e-6);
    ExpectSame({.budget = 4096}, 4, zero, 1e-6);  // ranks without a micro-batch
    ExpectSame({.recompute = true}, 2, zero, 1e-6);
    ModelShape untied = TinyShape();
    untied.tied = false;
    untied.layers = 3;
    ExpectSame({.shape = untied}, 2, zero, 1e-6);
    ModelShape one_layer = TinyShape();
    one_layer.layers = 1;
    ExpectSame({.shape = one_layer}, 2, zero, 1e-6);
    ExpectSame({.dtype = DType::kBFloat16}, 2, zero, 2e-2);
  }
  // Factors of the rate, and parts that are not trained, of which there are no gradients.
  ExpectSame({.rules = {.learning_rates = {{"layers.1", 0.5}}}}, 2, 3, 1e-6);
  ExpectSame({.rules = {.frozen = {"layers.0.mlp"}}}, 2, 2, 1e-6);
}

// Of R rounds of micro-batches each sends its share of the gradients of all others R times; the
// weights once (2), or twice a round ahead of the layers (3).
TEST(PartKeeperTest, BytesSentAreThoseOfTheTheory) {
  for (const int size : {2, 4}) {
    std::array<int64_t, 4> sent{};
    int64_t elements = 0;
    AsRanks(size, [&](Ranks* ranks) {
      for (const int64_t zero : {1, 2, 3}) {
        const Seen seen = TrainAs(ranks, {.budget = 4096}, zero);  // one round
        if (!ranks->first()) continue;
        sent[static_cast<size_t>(zero)] = seen.sent;
        elements = static_cast<int64_t>(seen.weights.size());
      }
    });
    const int64_t share = elements * 4 * (size - 1) / size;
    EXPECT_EQ(sent[2], sent[1]) << "gradients down, weights back";
    EXPECT_EQ(sent[3] - sent[2], share) << "weights once for the forward, once for the backward";
    EXPECT_GT(sent[2], 2 * share);
    EXPECT_LT(sent[2] - 2 * share, 4096) << "tokens' results and the norm";
  }
}

TEST(PartKeeperTest, RoomsAreTwoLayersTheHeadAndTheEmbedding) {
  const Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  const std::vector<int64_t> ends = BucketEnds(weights.base());
  ASSERT_EQ(ends.size(), 4u) << "head, two layers, embedding";
  EXPECT_EQ(ends.back(), weights.flat().elements());
  EXPECT_LT(ends[0], weights.table().layer(1).qkv);
  EXPECT_LT(weights.table().layer(1).down, ends[1]);
  EXPECT_LT(ends[1], weights.table().layer(0).qkv);
  EXPECT_LE(ends[2], weights.table().embedding());
  EXPECT_EQ(RoomElements(ends), ends[0] + 2 * (ends[1] - ends[0]) + ends[3] - ends[2]);
}

TEST(PartKeeperTest, FrozenModelsAreNotSpread) {
  AsRanks(2, [](Ranks* ranks) {
    Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    try {
      Optimizer(weights, {}, {.frozen = {"layers.0.mlp"}}, {.ranks = ranks, .zero = 3});
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("policy.frozen"), std::string::npos) << e.what();
    }
  });
}

TEST(PartKeeperTest, ARankThatDiesInAPassIsNamed) {
  const auto thrown = TryAsRanks(2, [](Ranks* ranks) {
    if (ranks->rank() == 1) throw Error(ErrorCode::kIo, "out of luck");
    TrainAs(ranks, {}, 3);
  });
  ASSERT_TRUE(thrown[0]);
  EXPECT_THROW(std::rethrow_exception(thrown[0]), RankLost);
}

}  // namespace
}  // namespace plumb::learner
