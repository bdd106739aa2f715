// The load of experts in training: learner/update/expert_balance.h with train_step.h.
#include "learner/update/expert_balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "learner/algorithms/grpo.h"
#include "learner/offline/preference_objective.h"
#include "learner/offline/sft_objective.h"
#include "policy_model/families/experts/exact_floats.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

constexpr int64_t kExperts = 8;

policy_model::ModelShape Shape(bool sigmoid = false) {
  policy_model::ModelShape shape = TinyShape();
  shape.family = "plumb";
  shape.experts = {
      .count = kExperts, .widths = {16}, .per_token = 2, .sigmoid = sigmoid, .bias = true};
  return shape;
}

struct Trainer {
  explicit Trainer(const configs::ExpertsConfig& options, DType dtype = DType::kFloat32,
                   bool sigmoid = false, int64_t micro_batch_tokens = 4096)
      : weights(Shape(sigmoid), Device::kCpu, dtype),
        transformer(weights.shape(), Device::kCpu, dtype),
        train(transformer, micro_batch_tokens),
        optimizer(Drawn(), {.learning_rate = 3e-3, .weight_decay = 0, .grad_clip = 0}),
        data(RandomDemonstrations(256, 5)),
        objective(train, weights, optimizer, data, {}, 0.0),
        balance(options, 1, transformer, weights, optimizer) {}

  policy_model::Weights& Drawn() {
    weights.Initialise(3, 0.2);
    return weights;
  }
  std::map<std::string, double> Step(int64_t step, double learning_rate = 3e-3) {
    balance.Begin(ExpertBalance::Phase::kTraining, step);
    auto metrics =
        objective.Train(OfflineBatch(objective.size(), 192, step, 1, true), learning_rate, step);
    balance.End(metrics);
    return metrics;
  }
  std::vector<float> Bias(int64_t layer) {
    const int64_t at = weights.table().layer(layer).router_bias;
    std::vector<float> out(kExperts), parts(policy_model::kExactParts * kExperts);
    policy_model::ConvertToFloat(weights.flat().at(at), weights.dtype(), parts);
    policy_model::JoinExact(parts, out);
    return out;
  }

  policy_model::Weights weights;
  policy_model::Transformer transformer;
  TrainStep train;
  Optimizer optimizer;
  std::vector<Demonstration> data;
  SftObjective objective;
  ExpertBalance balance;
};

// (largest - mean) / mean of the worst layer, over the last ten of `steps` steps.
double SpreadAtTheEnd(Trainer& trainer, int64_t steps) {
  double sum = 0;
  for (int64_t s = 0; s < steps; ++s) {
    const auto metrics = trainer.Step(s);
    if (s >= steps - 10) sum += metrics.at("moe/expert_load_max_over_mean") - 1;
  }
  return sum / 10;
}

TEST(ExpertBalanceTest, BiasesAndTheBalancingLossEvenOutTheLoadThatTrainingAloneDoesNot) {
  Trainer alone({}), lossy({.aux_coef = 0.3}), both({.bias_rate = 1e-3, .aux_coef = 0.1});
  const double without = SpreadAtTheEnd(alone, 150), by_loss = SpreadAtTheEnd(lossy, 150),
               by_both = SpreadAtTheEnd(both, 150);
  std::cout << "spread of the load: alone " << without << ", by the loss " << by_loss
            << ", by loss and biases " << by_both << "\n";
  EXPECT_GT(without, 0.3);
  EXPECT_LT(by_loss, 0.15);
  EXPECT_LT(by_both, 0.12);
  for (const float b : alone.Bias(0)) EXPECT_EQ(b, 0);
}

TEST(ExpertBalanceTest, ABiasMovesByItsRateAgainstTheLoadAndByNothingElse) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Trainer trainer({.bias_rate = 0.0625}, dtype, /*sigmoid=*/true);
    trainer.balance.Begin(ExpertBalance::Phase::kTraining, 0);
    auto metrics = trainer.objective.Train(OfflineBatch(256, 192, 0, 1, true), 3e-3, 0);
    const auto load = trainer.transformer.TakeLoad();
    Trainer again({.bias_rate = 0.0625}, dtype, true);
    again.Step(0);
    for (size_t l = 0; l < load.size(); ++l) {
      int64_t all = 0;
      for (const int64_t n : load[l].tokens) all += n;
      for (size_t e = 0; e < kExperts; ++e) {
        const int64_t over = load[l].tokens[e] * kExperts - all;
        EXPECT_EQ(again.Bias(static_cast<int64_t>(l))[e], over > 0   ? -0.0625f
                                                          : over < 0 ? 0.0625f
                                                                     : 0.0f);
      }
    }
    // The optimizer's copy is the one that counts.
    again.Step(1);
    float most = 0;
    for (const float b : again.Bias(0)) most = std::max(most, std::abs(b));
    EXPECT_EQ(most, 0.125f);
  }
  // A rate that bfloat16 has not.
  Trainer fine({.bias_rate = 1e-3}, DType::kBFloat16, true);
  for (const int64_t step : {0, 1}) fine.Step(step);
  bool moved = false;
  for (const float b : fine.Bias(0)) {
    EXPECT_TRUE(b == 0 || std::abs(b) == 1e-3f || std::abs(b) == 1e-3f + 1e-3f) << b;
    moved = moved || b != 0;
  }
  EXPECT_TRUE(moved);
}

TEST(ExpertBalanceTest, AnUpdateThatWasSkippedMovesNoBias) {
  Trainer trainer({.bias_rate = 0.1});
  trainer.balance.Begin(ExpertBalance::Phase::kTraining, 0);
  auto metrics = trainer.objective.Train(OfflineBatch(256, 64, 0, 1, true), 0, 0);
  trainer.optimizer.ZeroGrad();
  trainer.optimizer.Update(0, std::nan(""));
  trainer.balance.End(metrics);
  EXPECT_GE(metrics.at("moe/expert_load_max_over_mean"), 1);
  for (const float b : trainer.Bias(0)) EXPECT_EQ(b, 0);
}

TEST(ExpertBalanceTest, TheLossesOfRoutersAreMeansOverTheUpdateHoweverItIsCut) {
  // The z loss alone: it is a mean over tokens, whichever micro-batch they lie in.
  const auto gradient = [&](int64_t budget) {
    Trainer trainer({.z_coef = 0.5}, DType::kFloat32, false, budget);
    std::vector<SequenceView> views;
    for (size_t i = 0; i < 24; ++i)
      views.push_back({trainer.data[i].tokens, trainer.data[i].loss_mask});
    trainer.optimizer.ZeroGrad();
    trainer.train.Accumulate(
        trainer.weights, views, 1.0f, [](const ScoredToken&) { return TrainStep::Gradient{}; },
        trainer.optimizer.gradients());
    const auto& grad = trainer.optimizer.grad();
    return std::vector<float>(grad.f32(), grad.f32() + grad.elements());
  };
  const auto whole = gradient(4096), cut = gradient(60);
  double norm = 0, diff = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    norm += std::pow(static_cast<double>(whole[i]), 2);
    diff += std::pow(static_cast<double>(whole[i] - cut[i]), 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LT(std::sqrt(diff), 0.02 * std::sqrt(norm)) << "prefixes that are laid once aside";
}

TEST(ExpertBalanceTest, MetricsAreThoseOfTheDocumentationAndDroppedTokensAreCounted) {
  Trainer trainer({.aux_coef = 0.01, .z_coef = 0.001, .capacity = 0.5});
  const auto metrics = trainer.Step(0);
  for (const char* name :
       {"moe/expert_load_max_over_mean", "moe/router_entropy", "moe/aux_loss", "moe/z_loss",
        "moe/layer_0/expert_load_max_over_mean", "moe/layer_1/router_entropy"})
    EXPECT_GT(metrics.at(name), 0) << name;
  EXPECT_GT(metrics.at("moe/dropped"), 100);
  EXPECT_LE(metrics.at("moe/router_entropy"), std::log(8.0) + 1e-6);
}

// Experts of Qwen 3 MoE, the attention adapted or everything trained.
policy_model::Weights Qwen3Moe() {
  policy_model::ModelShape shape = TinyShape();
  shape.family = "qwen3_moe";
  shape.experts = {.count = 6, .widths = {16}, .per_token = 2, .dense = {1, 0}};
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.1);
  return weights;
}

TEST(ExpertStepsTest, DemonstrationsPairsAndRolloutsTeachQwen3Moe) {
  for (const bool adapter : {false, true}) {
    policy_model::Weights weights = Qwen3Moe();
    if (adapter) weights.AddAdapter({.rank = 4}, 1);
    policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
    TrainStep train(transformer, 512);
    Optimizer optimizer(weights, {.learning_rate = 5e-3, .weight_decay = 0});
    const auto data = RandomDemonstrations(64, 5);
    SftObjective sft(train, weights, optimizer, data, {}, 0.0);
    double first = 0, last = 0;
    for (int64_t s = 0; s < 30; ++s) {
      last = sft.Train(OfflineBatch(64, 16, s, 1, true), 5e-3, s).at("sft/loss");
      if (s == 0) first = last;
    }
    EXPECT_LT(last, first - 0.3) << adapter;

    ReferencePolicy reference(weights, train, /*keep_adapters=*/true);
    std::vector<PreferencePair> pairs;
    for (const Demonstration& d : RandomDemonstrations(32, 6)) {
      PreferencePair pair{.dataset = "toy", .row = pairs.size()};
      pair.chosen = pair.rejected = d;
      for (size_t i = 2; i < d.tokens.size(); ++i)
        pair.rejected.tokens[i] = 3 + (pair.rejected.tokens[i - 1] - 3 + 1) % 16;
      pairs.push_back(std::move(pair));
    }
    PreferenceObjective dpo(train, weights, optimizer, &reference, nullptr, {.beta = 0.1}, pairs,
                            {});
    for (int64_t s = 0; s < 20; ++s) {
      last = dpo.Train(OfflineBatch(32, 8, s, 1, true), 5e-3, s).at("dpo/loss");
      if (s == 0) {
        EXPECT_NEAR(last, std::log(2.0), 1e-5);
      }
    }
    EXPECT_LT(last, 0.6) << adapter;

    configs::Config config;
    Grpo grpo(config, train, weights, optimizer, nullptr);
    const auto groups = RandomGroups(4, 4, 9, train, weights, 0);
    const auto metrics = grpo.Train(groups, 1e-3, 0);
    EXPECT_GT(metrics.at("optim/grad_norm"), 0);
    EXPECT_LT(metrics.at("sampling/logprob_diff_max"), 1e-4);
  }
}

TEST(ExpertBalanceTest, OptionsThatAModelHasNoUseForAreRefused) {
  policy_model::Weights dense(TinyShape(), Device::kCpu, DType::kFloat32);
  policy_model::Transformer transformer(dense.shape(), Device::kCpu, DType::kFloat32);
  Optimizer optimizer(dense, {});
  const auto refused = [&](const configs::ExpertsConfig& options, const std::string& option) {
    try {
      ExpertBalance(options, 1, transformer, dense, optimizer);
      ADD_FAILURE() << option;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find("experts." + option), std::string::npos) << e.what();
    }
  };
  refused({.bias_rate = 0.1}, "bias_rate");
  refused({.aux_coef = 0.1}, "aux_coef");
  refused({.z_coef = 0.1}, "z_coef");
  refused({.capacity = 1}, "capacity");
  ExpertBalance none({}, 1, transformer, dense, optimizer);
  std::map<std::string, double> metrics;
  none.Begin(ExpertBalance::Phase::kTraining, 0);
  none.End(metrics);
  EXPECT_TRUE(metrics.empty());
}

}  // namespace
}  // namespace plumb::learner
