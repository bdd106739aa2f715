// learner/update/train_step.h: what neighbours share goes through the model once, and nobody can
// tell but by the counter.
#include "learner/update/train_step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "policy_model/memory/scalar_head.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

// Two answers of up to 6 tokens to each of `prompts` prompts of 12.
std::vector<Demonstration> Pairs(int prompts) {
  RandomStream random(5, 9);
  std::vector<Demonstration> out;
  for (int p = 0; p < prompts; ++p) {
    std::vector<int32_t> prompt;
    for (int i = 0; i < 12; ++i) prompt.push_back(static_cast<int32_t>(random.NextBelow(19)));
    for (int32_t first : {4, 5}) {  // so that they share no more than the prompt
      Demonstration d{.tokens = prompt, .loss_mask = std::vector<uint8_t>(prompt.size(), 0)};
      d.tokens.push_back(first);
      for (uint32_t i = random.NextBelow(6); i > 0; --i)
        d.tokens.push_back(static_cast<int32_t>(random.NextBelow(19)));
      d.loss_mask.resize(d.tokens.size(), 1);
      out.push_back(std::move(d));
    }
  }
  return out;
}

std::vector<SequenceView> Views(const std::vector<Demonstration>& data) {
  std::vector<SequenceView> views;
  for (const Demonstration& d : data) views.push_back({d.tokens, d.loss_mask});
  return views;
}

TEST(TrainStepTest, APromptOfAPairIsComputedOnce) {
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.2);
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  const std::vector<Demonstration> data = Pairs(3);
  const std::vector<SequenceView> views = Views(data);
  const auto pass = [&](TrainStep& train, policy_model::FlatBuffer& grad) {
    train.Accumulate(
        weights, views, 1.0f,
        [](const ScoredToken& t) {
          return TrainStep::Gradient{
              .logprob = 0.1f * static_cast<float>(t.token) - static_cast<float>(t.sequence),
              .entropy = 0.3f};
        },
        grad);
  };
  TrainStep alone(transformer, 1), together(transformer, 1000);
  policy_model::FlatBuffer expected(Device::kCpu, DType::kFloat32, weights.flat().elements());
  policy_model::FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  pass(alone, expected);
  pass(together, grad);
  EXPECT_EQ(alone.TakeSharedTokens(), 0);
  EXPECT_EQ(together.TakeSharedTokens(), 3 * 11)
      << "the last token of a prompt stays with each answer";
  EXPECT_EQ(together.TakeSharedTokens(), 0) << "since the last call";
  double diff = 0, norm = 0;
  for (int64_t i = 0; i < grad.elements(); ++i) {
    diff += std::pow(double{grad.f32()[i]} - double{expected.f32()[i]}, 2);
    norm += std::pow(double{expected.f32()[i]}, 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LE(std::sqrt(diff), 1e-5 * std::sqrt(norm));  // sums in another order
  const auto one = alone.Score(weights, views, 1.0f), all = together.Score(weights, views, 1.0f);
  for (size_t s = 0; s < views.size(); ++s) {
    ASSERT_EQ(all[s].size(), one[s].size());
    for (size_t i = 0; i < one[s].size(); ++i) EXPECT_NEAR(all[s][i], one[s][i], 1e-5);
  }
}

TEST(TrainStepTest, ValuesOfAPairAreThoseOfEach) {
  policy_model::Weights policy(TinyShape(), Device::kCpu, DType::kFloat32);
  policy.Initialise(1, 0.2);
  const policy_model::Weights weights = policy_model::ScalarHeadFrom(policy, 3);
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  const std::vector<Demonstration> data = Pairs(2);
  const std::vector<SequenceView> views = Views(data);
  TrainStep alone(transformer, 1), together(transformer, 1000);
  policy_model::FlatBuffer grad[2] = {{Device::kCpu, DType::kFloat32, weights.flat().elements()},
                                      {Device::kCpu, DType::kFloat32, weights.flat().elements()}};
  const auto loss = [](const ScoredToken& t) {
    return TrainStep::Gradient{.value = t.value - static_cast<float>(t.token)};
  };
  alone.AccumulateValues(weights, views, loss, grad[0]);
  together.AccumulateValues(weights, views, loss, grad[1]);
  EXPECT_EQ(together.TakeSharedTokens(), 2 * 11);
  double diff = 0, norm = 0;
  for (int64_t i = 0; i < grad[0].elements(); ++i) {
    diff += std::pow(double{grad[1].f32()[i]} - double{grad[0].f32()[i]}, 2);
    norm += std::pow(double{grad[0].f32()[i]}, 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LE(std::sqrt(diff), 1e-5 * std::sqrt(norm));
}

}  // namespace
}  // namespace plumb::learner
