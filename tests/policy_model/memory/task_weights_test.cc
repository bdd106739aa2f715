#include "policy_model/memory/task_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/base/error.h"
#include "tests/policy_model/task_model.h"

namespace plumb::policy_model {
namespace {

using testing::TaskModel;
using testing::TaskSpec;

TEST(TaskWeightsTest, AreASoftmaxOverTheAdapters) {
  Weights model = TaskModel();
  ParameterSet& set = *model.adapters()[0];
  const TaskSlices& at = set.adapter->tasks();
  std::vector<float> weights;
  TaskWeights(set, weights);
  ASSERT_EQ(weights.size(), 6u);
  for (int t = 0; t < 2; ++t) {
    double sum = 0, exps[3] = {};
    for (int k = 0; k < 3; ++k) {
      double logit = 0;
      for (int64_t i = 0; i < kTaskDim; ++i)
        logit += static_cast<double>(set.flat.f32()[at.gate + k * kTaskDim + i]) *
                 static_cast<double>(set.flat.f32()[at.embedding + t * kTaskDim + i]);
      sum += exps[k] = std::exp(logit);
    }
    for (int k = 0; k < 3; ++k)
      EXPECT_NEAR(static_cast<double>(weights[static_cast<size_t>(3 * t + k)]), exps[k] / sum,
                  1e-6);
  }
  // As an adapter begins, its tasks differ a little and none rules.
  Weights fresh(testing::TaskShape(), Device::kCpu, DType::kFloat32);
  fresh.AddAdapter(TaskSpec(), 5);
  TaskWeights(*fresh.adapters()[0], weights);
  EXPECT_NE(weights[0], weights[3]);
  for (const float w : weights) EXPECT_NEAR(w, 1.0f / 3, 0.1);
}

TEST(TaskWeightsTest, TheWayBackIsThatOfFiniteDifferences) {
  Weights model = TaskModel();
  ParameterSet& set = *model.adapters()[0];
  const TaskSlices& at = set.adapter->tasks();
  const std::vector<double> by = {0.3, -1.2, 0.7, 2.0, 0.1, -0.4};
  std::vector<float> weights;
  TaskWeights(set, weights);
  std::vector<float> de(2 * kTaskDim), dw(3 * kTaskDim);
  TaskWeightsBackward(set, weights, by, de.data(), dw.data());
  const auto value = [&] {
    std::vector<float> w;
    TaskWeights(set, w);
    return std::inner_product(by.begin(), by.end(), w.begin(), 0.0);
  };
  for (const auto& [offset, grad] : {std::pair(at.embedding, &de), {at.gate, &dw}}) {
    for (size_t i = 0; i < grad->size(); ++i) {
      float& x = set.flat.f32()[offset + static_cast<int64_t>(i)];
      const float keep = x;
      x = keep + 1e-2f;
      const double above = value();
      x = keep - 1e-2f;
      const double below = value();
      x = keep;
      EXPECT_NEAR(static_cast<double>((*grad)[i]), (above - below) / 2e-2, 2e-4);
    }
  }
  // What is frozen gets none.
  TaskWeightsBackward(set, weights, by, nullptr, nullptr);
}

TEST(TaskWeightsTest, OneTaskIsAnAdapterOfAllRanks) {
  const Weights model = TaskModel();
  const Weights one = model.ForTask("sums");
  EXPECT_EQ(one.gated(), -1);
  EXPECT_EQ(one.sets()[0], model.sets()[0]) << "the base is shared";
  const AdapterSpec& spec = one.adapters()[0]->adapter->spec();
  EXPECT_EQ(spec.rank, 6);
  EXPECT_EQ(spec.alpha, 18);
  EXPECT_EQ(spec.rank_pattern[0].second, 9);
  EXPECT_TRUE(spec.tasks.empty());
  for (const bool rslora : {false, true}) {
    AdapterSpec many = TaskSpec();
    many.rslora = rslora;
    const AdapterTable from(model.table(), many), to(model.table(), many.ForTask(1));
    for (const TensorEntry& e : model.table().entries()) {
      if (!from.Of(e.offset)) continue;
      for (size_t i = 0; i < from.Of(e.offset)->size(); ++i) {
        EXPECT_EQ((*from.Of(e.offset))[i].rank, (*to.Of(e.offset))[i].rank);
        EXPECT_FLOAT_EQ((*from.Of(e.offset))[i].scale, (*to.Of(e.offset))[i].scale);
      }
    }
  }
  EXPECT_THROW(model.ForTask("poems"), Error);
  const Weights with_tokens = TaskModel(TaskSpec(2)).ForTask("sums");
  EXPECT_EQ(with_tokens.task_tokens(), 2);
  EXPECT_EQ(with_tokens.adapters()[0]->adapter->spec().tasks, std::vector<std::string>{"sums"});
}

}  // namespace
}  // namespace plumb::policy_model
