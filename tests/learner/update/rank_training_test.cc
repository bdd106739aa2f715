// Several ranks against one: losses, gradients and weights of one update
// (learner/update/train_step.h, optimizer.h), and what a loss sees on each of them.
#include <gtest/gtest.h>

#include <cmath>

#include "learner/update/optimizer.h"
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

Seen UpdateAs(Ranks* ranks, int64_t micro_batch_tokens) {
  Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, micro_batch_tokens, ranks);
  Optimizer optimizer(weights, {.learning_rate = 1e-3}, {}, {.ranks = ranks});
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
