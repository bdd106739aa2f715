// learner/offline/kto.h on a tiny model: reference point, loss and gradient from their definition,
// learning, fixed batches, the cache.
#include "learner/offline/kto.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "learner/offline/preference_loss.h"
#include "learner/offline/reference_sums.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

// Desirable: the pattern of RandomDemonstrations; undesirable: the same prompt, then tokens of a
// smaller step.
std::vector<LabelledCompletion> Rows(int n, uint64_t seed) {
  std::vector<LabelledCompletion> out;
  for (Demonstration& d : RandomDemonstrations(n, seed)) {
    const bool good = out.size() % 2 == 0;
    for (size_t i = 2; !good && i < d.tokens.size(); ++i)
      d.tokens[i] = 3 + (d.tokens[i - 1] - 3 + 1) % 16;
    out.push_back(
        {.dataset = "toy", .row = out.size(), .completion = std::move(d), .desirable = good});
  }
  return out;
}

class MemoryCache : public LogprobCache {
 public:
  std::optional<std::vector<float>> Get(const Digest& model, const Digest& sequence) override {
    const auto found = values_.find({model, sequence});
    return found == values_.end() ? std::nullopt : std::optional(found->second);
  }
  void Put(const Digest& model, const Digest& sequence, std::span<const float> logprobs) override {
    values_[{model, sequence}] = {logprobs.begin(), logprobs.end()};
  }

 private:
  std::map<std::pair<Digest, Digest>, std::vector<float>> values_;
};

struct Rig {
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  explicit Rig(uint64_t seed = 3) { weights.Initialise(seed, 0.1); }
};

std::vector<uint32_t> FirstRows(uint32_t n) {
  std::vector<uint32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}

double SumOf(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

TEST(KtoObjective, MismatchedRowsTakeTheCompletionBeforeThem) {
  const auto rows = Rows(3, 1);
  const std::vector<const LabelledCompletion*> batch = {&rows[0], &rows[1], &rows[2]};
  const auto mismatched = KtoObjective::Mismatched(batch, 64);
  ASSERT_EQ(mismatched.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const auto& own = rows[i].completion.tokens;
    const auto& other = rows[(i + 2) % 3].completion.tokens;
    std::vector<int32_t> expected = {own[0], own[1]};  // prompts have two tokens
    expected.insert(expected.end(), other.begin() + 2, other.end());
    EXPECT_EQ(mismatched[i].tokens, expected);
    EXPECT_EQ(mismatched[i].loss_mask.size(), expected.size());
    EXPECT_EQ(mismatched[i].loss_mask[1], 0);
    EXPECT_EQ(mismatched[i].loss_mask[2], 1);
  }
  EXPECT_EQ(KtoObjective::Mismatched(batch, 4)[0].tokens.size(), 4u);
  // one token of the completion stays
  EXPECT_EQ(KtoObjective::Mismatched(batch, 1)[0].tokens.size(), 3u);
}

// Loss, reference point and rewards from log-probs that are computed here, with weights that differ
// by class.
TEST(KtoObjective, ABatchIsTheMeanOfItsDefinition) {
  Rig rig, reference_rig(4);
  Optimizer optimizer(rig.weights, {});
  ReferencePolicy reference(reference_rig.weights, rig.train);
  const KtoOptions options{.beta = 0.3,
                           .desirable_weight = 1.25,
                           .undesirable_weight = 0.75,
                           .batch = 6,
                           .shuffle = false};
  const auto rows = Rows(6, 9);
  KtoObjective kto(rig.train, rig.weights, optimizer, reference, nullptr, options, rows, {});
  std::vector<const LabelledCompletion*> batch;
  std::vector<SequenceView> own, other;
  for (const auto& row : rows) batch.push_back(&row);
  const auto mismatched = KtoObjective::Mismatched(batch, 1024);
  for (size_t i = 0; i < 6; ++i) {
    own.push_back({rows[i].completion.tokens, rows[i].completion.loss_mask});
    other.push_back({mismatched[i].tokens, mismatched[i].loss_mask});
  }
  const auto policy = rig.train.Score(rig.weights, own, 1.0f),
             policy_other = rig.train.Score(rig.weights, other, 1.0f);
  const auto frozen = rig.train.Score(reference_rig.weights, own, 1.0f);
  const auto frozen_other = rig.train.Score(reference_rig.weights, other, 1.0f);
  double mean = 0, loss = 0;
  for (size_t i = 0; i < 6; ++i) mean += (SumOf(policy_other[i]) - SumOf(frozen_other[i])) / 6;
  const double kl = std::max(mean, 0.0);
  for (size_t i = 0; i < 6; ++i) {
    const double ratio = SumOf(policy[i]) - SumOf(frozen[i]), sign = rows[i].desirable ? 1 : -1;
    loss += (rows[i].desirable ? 1.25 : 0.75) *
            (1 - 1 / (1 + std::exp(-sign * 0.3 * (ratio - kl)))) / 6;
  }
  const auto metrics = kto.Train(FirstRows(6), 0.0, 0);
  EXPECT_NEAR(metrics.at("kto/kl"), kl, 1e-4);
  EXPECT_NEAR(metrics.at("dpo/loss"), loss, 1e-5);
  EXPECT_DOUBLE_EQ(metrics.at("kto/desirable"), 0.5);
}

// The gradient of a batch against central differences along it. The reference point carries no
// gradient, so it has to be the same at both ends: a reference that likes the mismatched rows
// better keeps it at 0.
TEST(KtoObjective, GradientMatchesFiniteDifferencesOfTheLoss) {
  Rig rig;
  uint64_t seed = 0;
  configs::OptimizerConfig options;
  options.grad_clip = 0;
  const auto rows = Rows(6, 9);
  std::vector<float> gradient;
  double kl = 1;
  std::optional<Rig> reference_rig;
  const auto loss_at = [&](Weights& weights, std::vector<float>* out) {
    Optimizer optimizer(weights, options);
    ReferencePolicy reference(reference_rig->weights, rig.train);
    KtoObjective kto(rig.train, weights, optimizer, reference, nullptr,
                     {.beta = 0.5, .batch = 6, .shuffle = false}, rows, {});
    const auto metrics = kto.Train(FirstRows(6), 0.0, 0);
    kl = metrics.at("kto/kl");
    if (out) {
      out->assign(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
      for (float& g : *out) g /= static_cast<float>(1 - options.beta1);
    }
    return metrics.at("dpo/loss");
  };
  while (kl > 0 && ++seed < 20) {
    reference_rig.emplace(100 + seed);
    loss_at(rig.weights, &gradient);
  }
  ASSERT_EQ(kl, 0);
  double norm = 0;
  for (const float g : gradient) norm += static_cast<double>(g) * g;
  norm = std::sqrt(norm);
  ASSERT_GT(norm, 0.1);
  const double h = 2e-3;
  const auto moved = [&](double by) {
    Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
    weights.Initialise(3, 0.1);
    float* w = weights.flat().f32();
    for (size_t i = 0; i < gradient.size(); ++i)
      w[i] += static_cast<float>(by * gradient[i] / norm);
    const double loss = loss_at(weights, nullptr);
    EXPECT_EQ(kl, 0);
    return loss;
  };
  // fp32 log-probs leave about 1e-6 / 2 h = 0.0003, curvature along the gradient adds h^2.
  EXPECT_NEAR((moved(h) - moved(-h)) / (2 * h), norm, 2e-3 * norm);
}

TEST(KtoObjective, StartsAtOneHalfLearnsAndNeedsNoSecondReferenceForward) {
  Rig rig;
  Optimizer optimizer(rig.weights, {});
  ReferencePolicy reference(rig.weights, rig.train);
  MemoryCache cache;
  KtoObjective kto(rig.train, rig.weights, optimizer, reference, &cache, {.beta = 0.1, .batch = 8},
                   Rows(35, 1), Rows(24, 2));
  EXPECT_EQ(kto.size(), 32);
  EXPECT_EQ(kto.left_out(), 3);
  const OfflineEval before = kto.Evaluate();
  EXPECT_NEAR(before.loss, 0.5, 1e-6);  // the policy is the reference: every log-ratio is 0
  EXPECT_EQ(before.examples, 24);
  int64_t first_epoch = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const auto metrics = kto.Train(OfflineBatch(32, 8, step, 1, false), 5e-3, step);
    if (step == 3) first_epoch = kto.reference_forwards();
    EXPECT_GE(metrics.at("kto/kl"), 0);
  }
  EXPECT_EQ(kto.reference_forwards(), first_epoch)
      << "a second epoch meets the same mismatched rows";
  const OfflineEval after = kto.Evaluate();
  EXPECT_LT(after.loss, 0.4);
  EXPECT_GT(after.accuracy, 0.8);
  EXPECT_GT(after.margin, 1.0);

  Rig again;
  Optimizer second(again.weights, {});
  ReferencePolicy same(again.weights, again.train);
  KtoObjective rerun(again.train, again.weights, second, same, &cache, {.beta = 0.1, .batch = 8},
                     Rows(35, 1), Rows(24, 2));
  for (int64_t step = 0; step < 60; ++step)
    rerun.Train(OfflineBatch(32, 8, step, 1, false), 5e-3, step);
  EXPECT_EQ(rerun.Evaluate().loss, after.loss);
  EXPECT_EQ(rerun.reference_forwards(), 0);
  EXPECT_EQ(rerun.StateJson(), kto.StateJson());
  EXPECT_THROW(rerun.RestoreState("{\"reference\": \"other\"}"), Error);
}

TEST(KtoObjective, WrongInputIsNamed) {
  Rig rig;
  Optimizer optimizer(rig.weights, {});
  ReferencePolicy reference(rig.weights, rig.train);
  EXPECT_THROW(KtoObjective(rig.train, rig.weights, optimizer, reference, nullptr, {.batch = 1},
                            Rows(4, 1), {}),
               Error);
  auto rows = Rows(4, 1);
  rows[2].completion.loss_mask.assign(rows[2].completion.tokens.size(), 0);
  try {
    KtoObjective kto(rig.train, rig.weights, optimizer, reference, nullptr, {.batch = 2}, rows, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("toy row 2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
