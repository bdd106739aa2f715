#include "learner/offline/square_sums.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

// The sum over every token of the vocabulary, each of them asked for by itself.
TEST(SquareSumsTest, EqualTheSumOverTheVocabulary) {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  weights.Initialise(3, 0.3);
  Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  const std::vector<int32_t> prompt = {1, 4, 2};
  const std::vector<uint8_t> mask = {0, 0, 0, 1};
  std::vector<std::vector<int32_t>> ends;
  for (int32_t v = 0; v < TinyShape().vocab; ++v) {
    ends.push_back(prompt);
    ends.back().push_back(v);
  }
  std::vector<SequenceView> views;
  for (const auto& tokens : ends) views.push_back({tokens, mask});
  double sum = 0;
  for (const auto& scored : train.Score(weights, views, 1.0f))
    sum += std::exp(2 * static_cast<double>(scored.at(0)));
  SquareSums squares(weights.flat().stream());
  // In several micro-batches.
  for (const auto& both : train.Measure(weights, views, 1.0f, squares)) {
    ASSERT_EQ(both.size(), 2u);
    EXPECT_NEAR(static_cast<double>(both[1]), std::log(sum), 1e-5);
  }
}

}  // namespace
}  // namespace plumb::learner
