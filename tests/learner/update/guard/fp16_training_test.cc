// Training whose layers' products read float16 under a scaled loss (model.products = "fp16"): its
// curve beside float32's, gradients that float16 alone would lose, overflows that are survived, a
// resume in the middle of them, and the models that a run trains besides the policy.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/reward_modeling.h"
#include "learner/offline/sft_objective.h"
#include "policy_model/memory/scalar_head.h"
#include "tests/learner/algorithms/ppo_rig.h"
#include "tests/learner/loop/life.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using configs::Products;
using policy_model::Weights;

struct Learning {
  Weights weights;
  policy_model::Transformer transformer;
  TrainStep train;
  Optimizer optimizer;
  Learning(Products products, const configs::OptimizerConfig& options,
           const Stream& stream = Device::kCpu, DType dtype = DType::kFloat32,
           const policy_model::ModelShape& shape = TinyShape(), double std = 0.2)
      : weights(shape, stream, dtype),
        transformer(shape, stream, dtype),
        train(transformer, 16384),
        optimizer(Initialised(std), options, {.scale_loss = products == Products::kFp16}) {
    transformer.UseProducts(products);
    train.UsePartsOf(weights, optimizer);
  }
  Weights& Initialised(double std) {
    weights.Initialise(2, std);
    return weights;
  }
  // Of `factor` times the mean loss; that loss.
  double Accumulate(const std::vector<Demonstration>& data, float factor) {
    std::vector<SequenceView> views;
    for (const Demonstration& d : data) views.push_back({d.tokens, d.loss_mask});
    double loss = 0;
    int64_t scored = 0;
    optimizer.ZeroGrad();
    train.Accumulate(
        weights, views, 1.0f,
        [&](const ScoredToken& token) {
          loss -= static_cast<double>(token.logprob);
          ++scored;
          return TrainStep::Gradient{.logprob = -factor};
        },
        optimizer.gradients());
    return loss / static_cast<double>(scored);
  }
};

struct Curve {
  std::vector<double> loss;
  double seconds = 0;
};

Curve Train(Learning& learning, int sequences, int steps, double rate) {
  Curve curve;
  const auto begin = std::chrono::steady_clock::now();
  for (int step = 0; step < steps; ++step) {
    const auto data = RandomDemonstrations(sequences, static_cast<uint64_t>(step) % 7 + 1);
    const double loss =
        AccumulateMeanLoss(learning.train, learning.optimizer, learning.weights, data);
    learning.optimizer.Update(rate, loss);
    curve.loss.push_back(loss);
  }
  curve.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / steps;
  return curve;
}

// The largest gap of the means of 20 steps.
double Gap(const Curve& a, const Curve& b) {
  constexpr size_t kMean = 20;
  double gap = 0;
  for (size_t first = 0; first + kMean <= a.loss.size(); first += kMean) {
    double off = 0;
    for (size_t i = first; i < first + kMean; ++i) off += (a.loss[i] - b.loss[i]) / kMean;
    gap = std::max(gap, std::abs(off));
  }
  return gap;
}

TEST(Fp16TrainingTest, TheLossOf300StepsIsThatOfFloat32) {
  policy_model::SetThreads(1);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Learning exact(Products::kDType, {.weight_decay = 0}, Device::kCpu, dtype),
        fp16(Products::kFp16, {.weight_decay = 0}, Device::kCpu, dtype);
    const Curve a = Train(exact, 12, 300, 3e-3), b = Train(fp16, 12, 300, 3e-3);
    std::printf("largest gap of means of 20 steps %.5f nats; last %.5f and %.5f\n", Gap(a, b),
                a.loss.back(), b.loss.back());
    EXPECT_NE(a.loss, b.loss);
    EXPECT_GT(a.loss.front(), 2.0);
    EXPECT_LT(Gap(a, b), 0.01);
    EXPECT_LT(b.loss.back(), 0.02);
    EXPECT_EQ(fp16.optimizer.skipped(), 0);
    EXPECT_EQ(fp16.optimizer.loss_scale(), 65536);
  }
}

TEST(Fp16TrainingCuda, TheLossOf300StepsIsThatOfTheModelsTypeAndTheTimePrinted) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: training in float16 was NOT tried here";
  const OwnedStream stream(Device::Cuda(0));
  policy_model::ModelShape shape = TinyShape();
  shape.hidden = 1024;
  shape.heads = shape.kv_heads = 8;
  shape.head_dim = 128;
  shape.ffn = 4096;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Learning exact(Products::kDType, {.weight_decay = 0}, stream, dtype, shape, 0.02),
        fp16(Products::kFp16, {.weight_decay = 0}, stream, dtype, shape, 0.02);
    const Curve a = Train(exact, 200, 300, 1e-4), b = Train(fp16, 200, 300, 1e-4);
    std::printf("%s: largest gap of means of 20 steps %.5f nats; %.2f ms and %.2f ms a step\n",
                dtype == DType::kFloat32 ? "float32" : "bfloat16", Gap(a, b), 1e3 * a.seconds,
                1e3 * b.seconds);
    EXPECT_LT(Gap(a, b), 0.1);
    EXPECT_EQ(fp16.optimizer.skipped(), 0);
    EXPECT_LT(b.loss.back(), 0.5);
  }
}

// The gradient of a loss so small that float16 has no numbers for it: the scale saves it.
TEST(Fp16TrainingTest, SmallGradientsAreThereBecauseOfTheScale) {
  const auto data = RandomDemonstrations(8, 3);
  constexpr float kSmall = 1e-7f;
  Learning exact(Products::kDType, {});
  const auto gradient = [&](Learning& learning) {
    learning.Accumulate(data, kSmall);
    const float* const g = learning.optimizer.grad().f32();
    std::vector<float> out(g, g + learning.optimizer.grad().elements());
    for (float& x : out) x /= static_cast<float>(learning.optimizer.loss_scale());
    return out;
  };
  const std::vector<float> right = gradient(exact);
  const auto off = [&](double scale) {
    Learning fp16(Products::kFp16, {.loss_scale = scale});
    const std::vector<float> found = gradient(fp16);
    double error = 0, norm = 0;
    for (size_t i = 0; i < right.size(); ++i) {
      error += std::pow(static_cast<double>(found[i] - right[i]), 2);
      norm += std::pow(static_cast<double>(right[i]), 2);
    }
    return std::sqrt(error / norm);
  };
  const double with = off(65536), without = off(1);
  std::printf("gradient off by %.4f of its norm with a scale, %.4f without\n", with, without);
  EXPECT_LT(with, 0.01);
  EXPECT_GT(without, 0.2);
}

// A loss 4,000 times as large: its gradients do not fit at first, and fit once the scale is lower.
TEST(Fp16TrainingTest, OverflowsAreSurvived) {
  const auto data = RandomDemonstrations(8, 3);
  Learning learning(Products::kFp16, {.max_skipped_in_a_row = 1, .loss_scale_steps = 4});
  std::vector<double> scales;
  double first = 0, last = 0;
  const std::string before = learning.weights.ComputeDigest();
  for (int step = 0; step < 40; ++step) {
    last = learning.Accumulate(data, 4000.0f);
    if (step == 0) first = last;
    const UpdateResult update = learning.optimizer.Update(3e-3, last);
    if (scales.empty()) {
      EXPECT_FALSE(update.applied);
      EXPECT_EQ(learning.weights.ComputeDigest(), before);
    }
    scales.push_back(learning.optimizer.loss_scale());
  }
  const auto lowest = *std::min_element(scales.begin(), scales.end()),
             highest = *std::max_element(scales.begin(), scales.end());
  std::printf("scale from %g down to %g, %lld skipped; loss %.3f to %.3f\n", highest, lowest,
              static_cast<long long>(learning.optimizer.skipped()), first, last);
  EXPECT_EQ(scales.front(), 65536.0 / 4);
  EXPECT_GT(learning.optimizer.skipped(), 1);
  EXPECT_GT(learning.optimizer.updates(), 20);
  EXPECT_LT(last, first / 2);
  bool doubled = false;
  for (size_t i = 1; i < scales.size(); ++i) doubled = doubled || scales[i] == 2 * scales[i - 1];
  EXPECT_TRUE(doubled);
}

// A run whose scale goes up until gradients overflow and comes down again, in one part and in two.
LearnerResult RunTo(const std::string& folder, bool resume, int64_t stop_after,
                    std::vector<double>& scales) {
  policy_model::SetThreads(1);
  configs::Config config;
  config.run.steps = 24;
  config.run.checkpoint_every = 5;
  config.optimizer.learning_rate = 5e-3;
  config.optimizer.loss_scale = 1 << 24;
  config.optimizer.loss_scale_steps = 1;  // twice up, once down, and again
  Learning learning(Products::kFp16, config.optimizer);
  const auto data = RandomDemonstrations(22, 1), heldout = RandomDemonstrations(6, 2);
  SftObjective objective(learning.train, learning.weights, learning.optimizer, data, heldout);
  Checkpoints checkpoints(folder, 2, "");
  LearnerHooks hooks;
  int64_t steps = 0;
  hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    ++steps;
    scales.push_back(metrics.at("optim/loss_scale"));
    EXPECT_TRUE(metrics.contains("optim/skipped"));
  };
  hooks.stop = [&] { return stop_after >= 0 && steps >= stop_after; };
  return RunOffline(config, {.batch = 8}, objective, learning.weights, learning.optimizer,
                    checkpoints, hooks, resume);
}

TEST(Fp16TrainingTest, AResumedRunEqualsTheUnbrokenOne) {
  testing::TempFolder folder;
  std::vector<double> whole_scales, scales;
  const LearnerResult whole = RunTo(folder / "whole", false, -1, whole_scales);
  EXPECT_EQ(whole.steps, 24);
  EXPECT_GT(whole.skipped_updates, 4) << "it has to overflow now and then";
  EXPECT_GT(whole.updates, 8);
  for (const int64_t stop : {8, 9, 10}) {  // one of them behind an overflow
    const std::string parts = folder / ("parts" + std::to_string(stop));
    scales.clear();
    const LearnerResult first = RunTo(parts, false, stop, scales);
    EXPECT_EQ(first.steps, stop);
    const LearnerResult rest = RunTo(parts, true, -1, scales);
    EXPECT_EQ(rest.first_step, stop) << "an overflow is a step like any other";
    EXPECT_EQ(scales, whole_scales);
    EXPECT_EQ(rest.weights_sha256, whole.weights_sha256);
    EXPECT_EQ(rest.optimizer_sha256, whole.optimizer_sha256);
    EXPECT_EQ(rest.skipped_updates, whole.skipped_updates);
  }
}

// The loop of a run takes both from the recipe: what its products read, and the scale.
TEST(Fp16TrainingTest, ARunOnAnswersGoesOnWithItsScale) {
  configs::Config config = Recipe();
  config.model.products = Products::kFp16;
  config.optimizer.loss_scale = 1 << 24;
  config.optimizer.loss_scale_steps = 1;
  const TempFolder folder;
  std::vector<double> scales, whole_scales;
  Life whole(config, folder / "whole");
  whole.hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    whole_scales.push_back(metrics.at("optim/loss_scale"));
  };
  const LearnerResult all = whole.Run(false);
  EXPECT_EQ(all.steps, 6);
  Life first(config, folder / "parts");
  first.hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    scales.push_back(metrics.at("optim/loss_scale"));
    first.stop = scales.size() == 3;
  };
  EXPECT_EQ(first.Run(false).steps, 3);
  Life second(config, folder / "parts");
  second.hooks.step = [&](int64_t, std::map<std::string, double>& metrics) {
    scales.push_back(metrics.at("optim/loss_scale"));
  };
  ExpectSame(second.Run(true), all);
  EXPECT_EQ(scales, whole_scales);
  std::printf("scale after each step:");
  for (const double scale : whole_scales) std::printf(" %g", scale);
  std::printf("\n");
  config.model.products = Products::kDType;
  config.optimizer = Recipe().optimizer;
  EXPECT_NE(Unbroken(config).weights_sha256, all.weights_sha256);
}

TEST(Fp16TrainingTest, ARewardModelsUpdateHasTheScaleOnlyInBetween) {
  std::vector<PreferencePair> pairs;
  for (Demonstration& d : RandomDemonstrations(6, 4)) {
    PreferencePair pair{.dataset = "toy", .row = pairs.size()};
    pair.rejected = d;
    for (size_t i = 2; i < d.tokens.size(); ++i)
      pair.rejected.tokens[i] = 3 + (d.tokens[i] - 3 + 5) % 16;
    pair.chosen = std::move(d);
    pairs.push_back(std::move(pair));
  }
  std::vector<const PreferencePair*> pointers;
  for (const PreferencePair& pair : pairs) pointers.push_back(&pair);
  std::vector<double> norms;
  for (const Products products : {Products::kDType, Products::kFp16}) {
    Weights policy(TinyShape(), Device::kCpu, DType::kFloat32);
    policy.Initialise(5, 0.3);
    Weights weights = policy_model::ScalarHeadFrom(policy, 6);
    policy_model::Transformer transformer(weights.shape(), Device::kCpu, DType::kFloat32);
    transformer.UseProducts(products);
    Optimizer optimizer(weights, {}, {.scale_loss = products == Products::kFp16});
    RewardModeling learner(transformer, weights, optimizer, 60);
    const auto metrics = learner.Train(pointers, 1e-3);
    EXPECT_EQ(metrics.at("optim/skipped"), 0);
    norms.push_back(metrics.at("optim/grad_norm"));
  }
  EXPECT_GT(norms[0], 0.01);
  EXPECT_NEAR(norms[1], norms[0], 0.01 * norms[0]);
}

TEST(Fp16TrainingTest, PpoTrainsPolicyAndCritic) {
  for (const std::string mode : {"own", "shared"}) {
    std::map<std::string, double> metrics[2];
    std::string critics[2];
    for (const int of : {0, 1}) {
      configs::Config config = PpoConfig(mode);
      config.model.products = Products::kFp16;
      config.algorithm.logprob_gate = 0;
      config.algorithm.minibatches = 1;
      config.algorithm.epochs = 1;
      config.optimizer.loss_scale = of == 0 ? 65536 : 1024;
      Rig rig(config);
      rig.DrawHead();
      metrics[of] = rig.ppo->Train(RandomGroups(2, 4, 9, rig.train, rig.weights, 0), 1e-3, 0);
      critics[of] = rig.ppo->critic().weights().ComputeDigest();
      EXPECT_EQ(metrics[of].at("optim/skipped"), 0) << mode;
      EXPECT_EQ(metrics[of].at("optim/critic_skipped"), 0) << mode;
    }
    // Two scales, one update.
    for (const char* name : {"optim/grad_norm", "optim/critic_grad_norm"}) {
      EXPECT_GT(metrics[0].at(name), 0) << mode;
      EXPECT_NEAR(metrics[0].at(name), metrics[1].at(name), 1e-3 * metrics[0].at(name))
          << mode << name;
    }
    // A shared head's own gradient is of products in the model's type: the same, to the bit.
    if (mode == "shared") {
      EXPECT_EQ(critics[0], critics[1]);
    }
  }
}

// The first moments of an adapter are its gradient.
TEST(Fp16TrainingTest, AdaptersTrainToo) {
  std::vector<double> losses[2];
  for (const Products products : {Products::kDType, Products::kFp16}) {
    Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.2);
    weights.AddAdapter({.rank = 2, .alpha = 8}, 5);
    policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
    transformer.UseProducts(products);
    TrainStep train(transformer, 512);
    Optimizer optimizer(weights, {}, {.scale_loss = products == Products::kFp16});
    for (int step = 0; step < 60; ++step) {
      const double loss =
          AccumulateMeanLoss(train, optimizer, weights, RandomDemonstrations(12, step % 5 + 1));
      EXPECT_TRUE(optimizer.Update(2e-2, loss).applied);
      losses[products == Products::kFp16].push_back(loss);
    }
  }
  EXPECT_LT(losses[0].back(), losses[0].front() - 0.3);
  EXPECT_NE(losses[0], losses[1]);
  for (size_t i = 0; i < losses[0].size(); ++i) EXPECT_NEAR(losses[0][i], losses[1][i], 0.05) << i;
}

}  // namespace
}  // namespace plumb::learner
