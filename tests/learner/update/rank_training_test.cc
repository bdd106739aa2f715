// Several ranks against one: losses, gradients and weights of one update
// (learner/update/train_step.h, optimizer.h), and what a loss sees on each of them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "learner/update/optimizer.h"
#include "learner/update/optimizer_file.h"
#include "learner/update/train_step.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

struct Seen {
  double loss = 0, norm = 0;
  std::vector<std::pair<int32_t, int32_t>> tokens;  // in the order in which the loss saw them
  std::vector<std::vector<float>> scores;
  std::vector<float> gradient;
  std::string digest;  // of the weights after the update
  int64_t shared = 0;
};

// Sequences of which neighbours share a prompt, among them one without a scored token.
std::vector<Demonstration> Sequences() {
  std::vector<Demonstration> out = RandomDemonstrations(13, 5);
  for (size_t i = 1; i < out.size(); i += 2)
    std::copy_n(out[i - 1].tokens.begin(), 3, out[i].tokens.begin());
  std::fill(out[4].loss_mask.begin(), out[4].loss_mask.end(), uint8_t{0});
  return out;
}

Seen UpdateAs(Ranks* ranks, int64_t micro_batch_tokens, int64_t zero = 0) {
  Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, micro_batch_tokens, ranks);
  Optimizer optimizer(weights, {.learning_rate = 1e-3}, {}, {.ranks = ranks, .zero = zero});
  const auto data = Sequences();
  std::vector<SequenceView> views;
  for (const auto& d : data) views.push_back({d.tokens, d.loss_mask});
  Seen seen;
  seen.scores = train.Score(weights, views, 1.0f);
  optimizer.ZeroGrad();
  train.Accumulate(
      weights, views, 1.0f,
      [&](const ScoredToken& t) {
        seen.loss -= t.logprob + 0.01f * t.entropy;
        seen.tokens.emplace_back(t.sequence, t.token);
        return TrainStep::Gradient{-1.0f / 64, -0.01f / 64};
      },
      optimizer.gradients());
  const UpdateResult update = optimizer.Update(1e-3, seen.loss);
  EXPECT_TRUE(update.applied);
  seen.norm = update.grad_norm;
  const auto& grad = optimizer.grad();
  seen.gradient.assign(grad.f32(), grad.f32() + grad.elements());
  seen.digest = weights.ComputeDigest();
  seen.shared = train.TakeSharedTokens();
  return seen;
}

class RanksOfAnUpdate : public ::testing::TestWithParam<int> {};

TEST_P(RanksOfAnUpdate, FindWhatOneRankFinds) {
  const int size = GetParam();
  for (const int64_t budget : {16, 4096}) {  // many rounds; one sequence a rank and less
    Seen one;
    AsRanks(1, [&](Ranks*) { one = UpdateAs(nullptr, budget); });
    std::vector<Seen> all(static_cast<size_t>(size));
    AsRanks(size, [&](Ranks* ranks) {
      all[static_cast<size_t>(ranks->rank())] = UpdateAs(ranks, budget);
    });
    for (const Seen& seen : all) {
      EXPECT_EQ(seen.tokens, one.tokens) << "every rank's loss sees all, in order";
      EXPECT_NEAR(seen.loss, one.loss, 1e-6 * std::abs(one.loss));
      EXPECT_NEAR(seen.norm, one.norm, 1e-5 * one.norm);
      double norm = 0, difference = 0;
      for (size_t i = 0; i < one.gradient.size(); ++i) {
        norm += std::pow(static_cast<double>(one.gradient[i]), 2);
        difference += std::pow(static_cast<double>(one.gradient[i] - seen.gradient[i]), 2);
      }
      EXPECT_LT(std::sqrt(difference / norm), 1e-5);
      ASSERT_EQ(seen.scores.size(), one.scores.size());
      for (size_t s = 0; s < one.scores.size(); ++s) {
        ASSERT_EQ(seen.scores[s].size(), one.scores[s].size());
        for (size_t i = 0; i < one.scores[s].size(); ++i)
          EXPECT_NEAR(seen.scores[s][i], one.scores[s][i], 1e-5);
      }
      // The same bits on every rank.
      EXPECT_EQ(seen.loss, all[0].loss);
      EXPECT_EQ(seen.norm, all[0].norm);
      EXPECT_EQ(seen.gradient, all[0].gradient);
      EXPECT_EQ(seen.scores, all[0].scores);
      EXPECT_EQ(seen.digest, all[0].digest);
      EXPECT_EQ(seen.shared, all[0].shared);
    }
    if (budget == 16) {
      EXPECT_GT(all[0].shared, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TwoThreeAndFour, RanksOfAnUpdate, ::testing::Values(2, 3, 4));

// run.zero = 1: the same weights, a part of the moments each, and less sent.
TEST_P(RanksOfAnUpdate, WithAPartOfTheMomentsEachFindTheSame) {
  const int size = GetParam();
  std::vector<Seen> whole(static_cast<size_t>(size)), parts(static_cast<size_t>(size));
  AsRanks(size, [&](Ranks* ranks) {
    whole[static_cast<size_t>(ranks->rank())] = UpdateAs(ranks, 4096, 0);
    parts[static_cast<size_t>(ranks->rank())] = UpdateAs(ranks, 4096, 1);
  });
  for (int rank = 0; rank < size; ++rank) {
    const Seen &a = whole[static_cast<size_t>(rank)], &b = parts[static_cast<size_t>(rank)];
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_NEAR(a.norm, b.norm, 1e-12 * a.norm);
    EXPECT_EQ(a.digest, b.digest) << "the norm is below the clip";
  }
}

TEST(RanksOfAnUpdate, EachKeepsAPartAndTheRateOfAnother) {
  AsRanks(3, [&](Ranks* ranks) {
    Weights weights(TinyShape(), Device::kCpu, DType::kBFloat16);
    weights.Initialise(3, 0.2);
    const TrainingRules rules{.learning_rates = {{"layers.1", 0.5}}, .frozen = {"layers.0.mlp"}};
    Optimizer spread(weights, {.learning_rate = 1e-3}, rules, {.ranks = ranks, .zero = 1});
    auto& state = spread.sets().front();
    EXPECT_GT(state.runs.size(), 2u);
    EXPECT_EQ(state.m.elements(), state.kept_elements());
    EXPECT_EQ(state.own_master.elements(), state.kept_elements());
    EXPECT_EQ(ranks->Sum(static_cast<double>(state.kept_elements())),
              static_cast<double>(state.grad.elements()));
    Weights again(TinyShape(), Device::kCpu, DType::kBFloat16);
    again.Initialise(3, 0.2);
    Optimizer whole(again, {.learning_rate = 1e-3}, rules, {.ranks = ranks});
    for (int step = 0; step < 3; ++step) {
      for (Optimizer* each : {&spread, &whole}) {
        each->ZeroGrad();
        for (int64_t i = 0; i < each->grad().elements(); ++i)
          each->grad().f32()[i] =
              1e-4f * static_cast<float>((i * 7 + ranks->rank() + step) % 13 - 6);
        EXPECT_TRUE(each->Update(1e-2, 1.0).applied);
      }
      EXPECT_EQ(weights.ComputeDigest(), again.ComputeDigest()) << step;
    }
    // What is read of the parts is the whole.
    std::vector<float> m(static_cast<size_t>(state.grad.elements()));
    spread.ReadKept(state, state.m, 0, std::as_writable_bytes(std::span(m)));
    const auto& all = whole.sets().front().m;
    EXPECT_TRUE(std::equal(m.begin(), m.end(), all.f32()));
    std::vector<float> middle(777);
    spread.ReadKept(state, state.m, 1001, std::as_writable_bytes(std::span(middle)));
    EXPECT_TRUE(std::equal(middle.begin(), middle.end(), all.f32() + 1001));
  });
}

// Per step: the gradients down to their owners, the weights back, the norm and nothing else.
TEST(RanksOfAnUpdate, BytesSentAreThoseOfTheTheory) {
  for (const auto& [zero, weights_bytes] : {std::pair(0, 4), {1, 2}}) {  // bfloat16 weights
    AsRanks(4, [&, zero = zero, weights_bytes = weights_bytes](Ranks* ranks) {
      Weights weights(TinyShape(), Device::kCpu, DType::kBFloat16);
      Optimizer optimizer(weights, {}, {}, {.ranks = ranks, .zero = zero});
      const int64_t n = optimizer.grad().elements(), before = ranks->sent_bytes();
      ASSERT_EQ(n % (4 * 64), 0);
      optimizer.Update(1e-3, 1.0);
      const int64_t norm = zero == 1 ? 3 * 8 : 0;
      EXPECT_EQ(ranks->sent_bytes() - before, n * 3 / 4 * (4 + weights_bytes) + norm) << zero;
    });
  }
}

// What is left of rounded gradients is in the optimizer's file, and whoever reads it adds it once.
TEST(RanksOfAnUpdate, WhatIsLeftOfRoundedGradientsIsReadByOneRankAndAddedOnce) {
  const testing::TempFolder folder;
  const Weights shape(TinyShape(), Device::kCpu, DType::kFloat32);
  std::vector<size_t> places;  // some of every tensor
  for (const auto& entry : shape.table().entries()) {
    for (const int64_t i : {int64_t{0}, entry.elements / 3, entry.elements / 2, entry.elements - 1})
      places.push_back(static_cast<size_t>(entry.offset + i));
  }
  std::vector<double> left(places.size());
  AsRanks(3, [&](Ranks* ranks) {
    Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.2);
    Optimizer optimizer(weights, {}, {}, {.ranks = ranks, .wire = Wire::kInt8});
    for (int64_t i = 0; i < optimizer.grad().elements(); ++i)
      optimizer.grad().f32()[i] = static_cast<float>((i * 7 + ranks->rank()) % 13 - 6) * 1e-3f;
    ASSERT_TRUE(optimizer.Update(1e-3, 1.0).applied);
    auto& residual = optimizer.sets().front().residual;
    // Of all ranks, before and after it is handed to its owners.
    for (size_t i = 0; i < places.size(); ++i) {
      const double sum = ranks->Sum(static_cast<double>(residual.f32()[places[i]]));
      if (ranks->first()) left[i] = sum;
    }
    optimizer.FoldResiduals();
    for (size_t i = 0; i < places.size(); ++i) {
      const double sum = ranks->Sum(static_cast<double>(residual.f32()[places[i]]));
      if (ranks->first()) {
        EXPECT_NEAR(sum, left[i], 1e-9);
      }
    }
    SaveOptimizer(ranks->first() ? folder / "o" : "", optimizer, /*moments=*/true);
  });
  Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  Optimizer alone(weights, {}, {}, {});
  LoadOptimizer(folder / "o", alone, /*moments=*/true);
  alone.Update(0, 1.0);
  double most = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_NEAR(alone.grad().f32()[places[i]], left[i], 1e-9);
    most = std::max(most, std::abs(left[i]));
  }
  EXPECT_GT(most, 1e-7) << "something was lost";
  alone.ZeroGrad();
  alone.Update(0, 1.0);
  EXPECT_EQ(alone.grad().f32()[places[1]], 0) << "and once only";
}

TEST(RanksOfAnUpdate, EightBitsAreNotSpread) {
  AsRanks(2, [](Ranks* ranks) {
    Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    EXPECT_THROW(
        Optimizer(weights, {.moments = configs::Moments::kInt8}, {}, {.ranks = ranks, .zero = 1}),
        Error);
    EXPECT_NO_THROW(Optimizer(weights, {.moments = configs::Moments::kInt8}, {}, {.ranks = ranks}));
  });
}

TEST(RanksOfAnUpdate, AnUpdateThatOneRankCannotMakeIsMadeByNone) {
  std::vector<std::string> digests(2);
  AsRanks(2, [&](Ranks* ranks) {
    Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.2);
    Optimizer optimizer(weights, {.learning_rate = 1e-3}, {}, {.ranks = ranks});
    const std::string before = weights.ComputeDigest();
    if (ranks->rank() == 1) optimizer.grad().f32()[7] = std::numeric_limits<float>::infinity();
    const UpdateResult update = optimizer.Update(1e-3, 1.0);
    EXPECT_FALSE(update.applied);
    EXPECT_EQ(update.why_skipped, "the gradient is not finite");
    EXPECT_EQ(optimizer.skipped(), 1);
    EXPECT_EQ(weights.ComputeDigest(), before);
  });
}

}  // namespace
}  // namespace plumb::learner
