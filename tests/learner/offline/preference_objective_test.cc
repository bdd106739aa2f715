// learner/offline/preference_objective.h on a tiny model: learning, the whole gradient against
// finite differences, the cache.
#include "learner/offline/preference_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "learner/offline/offline_objective.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

// Chosen: the pattern of RandomDemonstrations; rejected: the same prompt, then tokens of a smaller
// step.
std::vector<PreferencePair> Pairs(int n, uint64_t seed) {
  std::vector<PreferencePair> out;
  for (Demonstration& d : RandomDemonstrations(n, seed)) {
    PreferencePair pair{.dataset = "toy", .row = out.size()};
    pair.rejected = d;
    for (size_t i = 2; i < d.tokens.size(); ++i)
      pair.rejected.tokens[i] = 3 + (pair.rejected.tokens[i - 1] - 3 + 1) % 16;
    pair.chosen = std::move(d);
    out.push_back(std::move(pair));
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
  size_t size() const { return values_.size(); }

 private:
  std::map<std::pair<Digest, Digest>, std::vector<float>> values_;
};

struct Rig {
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};  // a few pairs a micro-batch
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  explicit Rig(uint64_t seed = 3) { weights.Initialise(seed, 0.1); }
};

TEST(OfflineBatch, EveryEpochVisitsEveryRowOnceInItsOwnOrder) {
  std::vector<uint32_t> walked;
  for (int64_t step = 0; step < 6; ++step) {
    for (const uint32_t row : OfflineBatch(9, 3, step, 5, true)) walked.push_back(row);
  }
  const std::vector<uint32_t> first(walked.begin(), walked.begin() + 9),
      second(walked.begin() + 9, walked.end());
  EXPECT_EQ(std::set<uint32_t>(first.begin(), first.end()).size(), 9u);
  EXPECT_EQ(std::set<uint32_t>(second.begin(), second.end()).size(), 9u);
  EXPECT_NE(first, second);
  EXPECT_EQ(OfflineBatch(9, 4, 2, 5, true),
            std::vector<uint32_t>(walked.begin() + 8, walked.begin() + 12));
  EXPECT_EQ(OfflineBatch(3, 4, 1, 5, false), (std::vector<uint32_t>{1, 2, 0, 1}));
}

// Losses of whole batches, mixtures and weights of lengths go through the same passes.
TEST(PreferenceObjective, MixturesAndBatchLossesLearn) {
  using Kind = PreferenceLossKind;
  struct Case {
    std::vector<WeightedLoss> losses;
    double ld_alpha, start;
  };
  for (const Case& c :
       {Case{{{Kind::kAot, 1}}, 1, std::log(2.0)}, Case{{{Kind::kSigmoid, 1}}, 0.3, std::log(2.0)},
        Case{{{Kind::kSigmoid, 0.8}, {Kind::kBcoPair, 0.2}}, 1, 1.2 * std::log(2.0)}}) {
    Rig rig;
    Optimizer optimizer(rig.weights, {});
    ReferencePolicy reference(rig.weights, rig.train);
    MemoryCache cache;
    auto pairs = Pairs(16, 1), heldout = Pairs(8, 2);
    for (auto* part : {&pairs, &heldout}) {
      for (PreferencePair& pair : *part) {  // answers of other lengths than each other's
        pair.rejected.tokens.push_back(5);
        pair.rejected.loss_mask.push_back(1);
      }
    }
    PreferenceObjective objective(rig.train, rig.weights, optimizer, &reference, &cache,
                                  {.beta = 0.1}, pairs, heldout, c.losses, c.ld_alpha);
    const OfflineEval before = objective.Evaluate();
    EXPECT_NEAR(before.loss, c.start, 1e-6);
    for (int64_t step = 0; step < 12; ++step) {
      const auto metrics = objective.Train(OfflineBatch(16, 8, step, 1, true), 5e-3, step);
      if (step == 0) {
        EXPECT_NEAR(metrics.at("dpo/loss"), c.start, 1e-6);
      }
    }
    EXPECT_LT(objective.Evaluate().loss, 0.9 * before.loss);
  }
}

// WPO: the loss of a pair times what the policy would write of it, which has no gradient; through a
// whole model, against the same pairs without weights.
TEST(PreferenceObjective, WeighsPairsByWhatThePolicyWouldWrite) {
  const auto pairs = Pairs(4, 9);
  configs::OptimizerConfig options;
  options.grad_clip = 0;
  const auto run = [&](std::span<const PreferencePair> of, bool weighted,
                       std::vector<float>* gradient) {
    Rig rig, reference_rig(4);
    ReferencePolicy reference(reference_rig.weights, rig.train);
    Optimizer optimizer(rig.weights, options);
    PreferenceObjective objective(rig.train, rig.weights, optimizer, &reference, nullptr,
                                  {.beta = 0.5}, of, of, {}, 1, weighted);
    const double held_out = objective.Evaluate().loss;
    std::vector<uint32_t> rows(of.size());
    std::iota(rows.begin(), rows.end(), 0u);
    const auto metrics = objective.Train(rows, 0.0, 0);
    EXPECT_NEAR(held_out, metrics.at("dpo/loss"), 1e-6) << "held out as trained";
    EXPECT_EQ(metrics.contains("dpo/weight"), weighted);
    gradient->assign(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
    return std::pair(metrics.at("dpo/loss"), weighted ? metrics.at("dpo/weight") : 1.0);
  };
  double loss = 0, weight = 0;
  std::vector<float> sum;
  std::set<double> weights;
  for (size_t i = 0; i < pairs.size(); ++i) {
    std::vector<float> plain, alone;
    const std::span<const PreferencePair> one(&pairs[i], 1);
    const double unweighted = run(one, false, &plain).first;
    const auto [value, of_pair] = run(one, true, &alone);
    EXPECT_GT(of_pair, 0);
    EXPECT_NEAR(value, of_pair * unweighted, 1e-6);
    sum.resize(plain.size());
    for (size_t k = 0; k < plain.size(); ++k) {
      const double expected = of_pair * static_cast<double>(plain[k]);
      ASSERT_NEAR(static_cast<double>(alone[k]), expected, 1e-6 + 1e-4 * std::abs(expected));
      sum[k] += alone[k] / static_cast<float>(pairs.size());
    }
    loss += value / static_cast<double>(pairs.size());
    weight += of_pair / static_cast<double>(pairs.size());
    weights.insert(of_pair);
  }
  EXPECT_EQ(weights.size(), pairs.size()) << "they differ";
  std::vector<float> together;
  const auto [all, mean] = run(pairs, true, &together);
  EXPECT_NEAR(all, loss, 1e-6);
  EXPECT_NEAR(mean, weight, 1e-5);
  for (size_t k = 0; k < sum.size(); ++k) ASSERT_NEAR(together[k], sum[k], 1e-5f);
}

TEST(PreferenceObjective, StartsAtLogTwoAndLearnsToPrefer) {
  Rig rig;
  Optimizer optimizer(rig.weights, {});
  ReferencePolicy reference(rig.weights, rig.train);
  MemoryCache cache;
  const auto pairs = Pairs(32, 1), heldout = Pairs(24, 2);
  PreferenceObjective dpo(rig.train, rig.weights, optimizer, &reference, &cache, {.beta = 0.1},
                          pairs, heldout);
  const OfflineEval before = dpo.Evaluate();
  EXPECT_NEAR(before.loss, std::log(2.0), 1e-6);
  EXPECT_EQ(before.examples, 24);
  for (int64_t step = 0; step < 40; ++step) {
    const auto metrics = dpo.Train(OfflineBatch(32, 8, step, 1, true), 5e-3, step);
    if (step == 0) {
      EXPECT_NEAR(metrics.at("dpo/loss"), std::log(2.0), 1e-6);
    }
    // Both held-out and training sequences are computed once, though each training pair comes ten
    // times.
    if (step >= 4) {
      EXPECT_EQ(metrics.at("dpo/reference_forwards"), 2 * (32 + 24));
    }
  }
  const OfflineEval after = dpo.Evaluate();
  EXPECT_LT(after.loss, 0.35);
  EXPECT_GT(after.accuracy, 0.9);
  EXPECT_GT(after.margin, 1.0);

  // A second run on the same cache needs no reference forward, and walks the same way bit for bit.
  Rig again;
  Optimizer second(again.weights, {});
  ReferencePolicy same(again.weights, again.train);
  PreferenceObjective rerun(again.train, again.weights, second, &same, &cache, {.beta = 0.1}, pairs,
                            heldout);
  EXPECT_EQ(rerun.Evaluate().loss, before.loss);
  for (int64_t step = 0; step < 40; ++step)
    rerun.Train(OfflineBatch(32, 8, step, 1, true), 5e-3, step);
  EXPECT_EQ(rerun.Evaluate().loss, after.loss);
  EXPECT_EQ(rerun.reference_forwards(), 0);
  std::set<Digest> distinct;  // some of the toy sequences are equal, and then stored once
  for (const auto* list : {&pairs, &heldout}) {
    for (const PreferencePair& pair : *list) {
      for (const Demonstration* d : {&pair.chosen, &pair.rejected})
        distinct.insert(SequenceDigest(d->tokens, d->loss_mask));
    }
  }
  EXPECT_EQ(cache.size(), distinct.size());

  // Another reference has names of its own in the cache.
  Rig other(8);
  Optimizer third(other.weights, {});
  ReferencePolicy changed(other.weights, other.train);
  PreferenceObjective elsewhere(other.train, other.weights, third, &changed, &cache, {}, pairs,
                                heldout);
  elsewhere.Evaluate();
  EXPECT_EQ(elsewhere.reference_forwards(), 48);
}

TEST(PreferenceObjective, LossesWithoutAReferenceLearnAsWell) {
  for (const auto kind : {PreferenceLossKind::kSimpo, PreferenceLossKind::kOrpo}) {
    Rig rig;
    Optimizer optimizer(rig.weights, {});
    const auto pairs = Pairs(32, 1), heldout = Pairs(24, 2);
    PreferenceObjective objective(rig.train, rig.weights, optimizer, nullptr, nullptr,
                                  {.kind = kind, .beta = 1.0}, pairs, heldout);
    const OfflineEval before = objective.Evaluate();
    for (int64_t step = 0; step < 40; ++step)
      objective.Train(OfflineBatch(32, 8, step, 1, true), 5e-3, step);
    const OfflineEval after = objective.Evaluate();
    EXPECT_LT(after.loss, 0.8 * before.loss);
    EXPECT_GT(after.accuracy, 0.9);
    EXPECT_EQ(objective.reference_forwards(), 0);
  }
}

// The gradient of a whole batch against central differences of its loss, along the gradient itself.
TEST(PreferenceObjective, GradientMatchesFiniteDifferencesOfTheLoss) {
  for (const auto kind : {PreferenceLossKind::kSigmoid, PreferenceLossKind::kIpo,
                          PreferenceLossKind::kSimpo, PreferenceLossKind::kOrpo}) {
    Rig rig, reference_rig(4);
    ReferencePolicy reference(reference_rig.weights, rig.train);
    const auto pairs = Pairs(6, 9);
    const std::vector<uint32_t> rows = {0, 1, 2, 3, 4, 5};
    configs::OptimizerConfig options;
    options.grad_clip = 0;
    // The first moment after one update is (1 - beta1) times the gradient: a way to read it.
    const auto loss_at = [&](Weights& weights, std::vector<float>* gradient) {
      Optimizer optimizer(weights, options);
      PreferenceObjective objective(rig.train, weights, optimizer, &reference, nullptr,
                                    {.kind = kind, .beta = 0.5}, pairs, {});
      const double loss = objective.Train(rows, 0.0, 0).at("dpo/loss");
      if (gradient) {
        gradient->assign(optimizer.m().f32(), optimizer.m().f32() + optimizer.m().elements());
        for (float& g : *gradient) g /= static_cast<float>(1 - options.beta1);
      }
      return loss;
    };
    std::vector<float> gradient;
    loss_at(rig.weights, &gradient);
    double norm = 0;
    for (const float g : gradient) norm += static_cast<double>(g) * g;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0.5);
    const double h = 2e-3;
    const auto moved = [&](double by) {
      Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
      weights.Initialise(3, 0.1);
      float* w = weights.flat().f32();
      for (size_t i = 0; i < gradient.size(); ++i)
        w[i] += static_cast<float>(by * gradient[i] / norm);
      return loss_at(weights, nullptr);
    };
    std::printf("loss %d: gradient norm %.4f, central difference %.4f\n", static_cast<int>(kind),
                norm, (moved(h) - moved(-h)) / (2 * h));
    // fp32 log-probs leave about 1e-6 / 2 h = 0.0003 nats, curvature along the gradient adds h^2.
    EXPECT_NEAR((moved(h) - moved(-h)) / (2 * h), norm, 1e-3 * norm) << static_cast<int>(kind);
  }
}

TEST(PreferenceObjective, AnAnswerWithoutTokensIsNamed) {
  Rig rig;
  Optimizer optimizer(rig.weights, {});
  auto pairs = Pairs(3, 1);
  pairs[2].rejected.loss_mask.assign(pairs[2].rejected.tokens.size(), 0);
  try {
    PreferenceObjective objective(rig.train, rig.weights, optimizer, nullptr, nullptr,
                                  {.kind = PreferenceLossKind::kSimpo}, pairs, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("toy row 2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner
