// Counts allocations in steady train steps (tests/testing/allocation_counter.h):
// learner/update/train_step.h and the optimizer.
#include <gtest/gtest.h>

#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/allocation_counter.h"

namespace plumb::learner {
namespace {

class TrainStepAllocation : public ::testing::TestWithParam<DType> {};

TEST_P(TrainStepAllocation, NoneAfterTheFirstStep) {
  policy_model::Weights weights(TinyShape(), Device::kCpu, GetParam());
  weights.Initialise(1, 0.2);
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, GetParam());
  TrainStep train(transformer, 24);
  Optimizer optimizer(weights, {});
  const std::vector<Demonstration> data = RandomDemonstrations(9, 3);
  std::vector<SequenceView> views;
  for (const Demonstration& d : data) {
    // with a prefix in common
    for (int answer = 0; answer < 2; ++answer)
      views.push_back({.tokens = d.tokens, .mask = d.loss_mask});
  }
  int64_t scored = 0;
  const TrainStep::TokenLoss loss = [&scored](const ScoredToken&) {
    ++scored;
    return TrainStep::Gradient{.logprob = -0.01f, .entropy = -0.001f};
  };
  const auto step = [&] {
    optimizer.ZeroGrad();
    train.Accumulate(weights, views, 1.0f, loss, optimizer.gradients());
    return optimizer.Update(1e-3, 1.0).applied;
  };
  ASSERT_TRUE(step());
  const int64_t once = scored;
  StartCounting();
  bool applied = true;
  for (int i = 0; i < 20; ++i) applied = step() && applied;
  counting = false;
  PrintAllocations("20 train steps of several micro-batches");
  EXPECT_EQ(ours.load(), 0);
  EXPECT_TRUE(applied);
  EXPECT_EQ(scored, 21 * once) << "the measured steps were not whole";
}

INSTANTIATE_TEST_SUITE_P(DTypes, TrainStepAllocation,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16));

}  // namespace
}  // namespace plumb::learner
