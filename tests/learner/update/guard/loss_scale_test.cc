// learner/update/guard/loss_scale.h against torch.amp.GradScaler (tests/golden/loss_scale.py), its
// bounds, and what it does in an optimizer whose gradients overflow.
#include "learner/update/guard/loss_scale.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "learner/update/checkpoint_manifest.h"
#include "learner/update/optimizer.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using policy_model::Weights;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kRate = 1e-3;

TEST(LossScaleTest, FollowsGradScaler) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/loss_scale.json");
  int updates = 0, lowered = 0, raised = 0;
  for (const Json& c : Json::parse(file)) {
    LossScale scale(c["largest"], c["interval"]);
    for (const Json& update : c["updates"]) {  // overflow, scale, steps, applied
      const double before = scale.scale();
      if (update[0].get<bool>()) scale.Overflowed();
      else scale.Passed();
      ASSERT_EQ(scale.scale(), update[1].get<double>()) << updates;
      ASSERT_EQ(scale.state().steps, update[2].get<int64_t>()) << updates;
      ASSERT_EQ(update[3].get<bool>(), !update[0].get<bool>());
      lowered += scale.scale() < before;
      raised += scale.scale() > before;
      ++updates;
    }
  }
  EXPECT_GT(updates, 1500);
  EXPECT_GT(lowered, 100);
  EXPECT_GT(raised, 100);
}

TEST(LossScaleTest, NeverAboveTheFirstAndNeverBelowOne) {
  LossScale scale(64, 2);
  for (int i = 0; i < 20; ++i) scale.Passed();
  EXPECT_EQ(scale.scale(), 64);
  for (const double down : {16.0, 4.0, 1.0}) {
    scale.Overflowed();
    EXPECT_EQ(scale.scale(), down);
  }
  try {
    scale.Overflowed();
    FAIL() << "a scale below 1";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNonFinite);
    EXPECT_NE(e.message().find("model.products = \"dtype\""), std::string::npos) << e.what();
  }
  EXPECT_EQ(scale.scale(), 1);
  LossScale two(2, 1);
  EXPECT_THROW(two.Overflowed(), Error) << "1/2";
}

TEST(LossScaleTest, GoesOnFromACheckpoint) {
  LossScale scale(65536, 5);
  scale.Overflowed();
  for (int i = 0; i < 3; ++i) scale.Passed();
  LossScale other(65536, 5);
  other.Restore(scale.state());
  EXPECT_EQ(other.state(), scale.state());
  for (int i = 0; i < 2; ++i) other.Passed();
  EXPECT_EQ(other.scale(), 32768);
  LossScale lower(1024, 5);
  lower.Restore(scale.state());
  EXPECT_EQ(lower.scale(), 1024) << "never above its own largest";
  lower.Restore({});
  EXPECT_EQ(lower.scale(), 1024) << "of a run that had none";
  LossScale none;
  none.Restore(scale.state());
  EXPECT_EQ(none.scale(), 1);
  EXPECT_EQ(none.state().scale, 0);
}

TEST(LossScaleTest, StandsInTheManifest) {
  CheckpointState state;
  state.counters = {.updates = 7, .skipped = 2, .loss_scale = {.scale = 4096, .steps = 3}};
  state.models["critic"].counters.loss_scale = {.scale = 2, .steps = 0};
  const std::string text = WriteManifest({.files = {}, .state = state});
  const CheckpointState read = *ReadManifest(text, "here").state;
  EXPECT_EQ(read.counters, state.counters);
  EXPECT_EQ(read.models.at("critic").counters, state.models.at("critic").counters);
  const std::string without = WriteManifest({.files = {}, .state = CheckpointState{}});
  EXPECT_EQ(without.find("loss_scale"), std::string::npos);
  EXPECT_EQ(ReadManifest(without, "here").state->counters, Optimizer::Counters());
}

struct Learning {
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  Optimizer optimizer;
  explicit Learning(const configs::OptimizerConfig& options, Ranks* ranks = nullptr,
                    int64_t zero = 0)
      : optimizer(Initialised(), options, {.scale_loss = true}, {.ranks = ranks, .zero = zero}) {}
  Weights& Initialised() {
    weights.Initialise(3, 0.2);
    return weights;
  }
  // An update whose gradients are 0.01 times the scale, or not finite.
  UpdateResult Update(bool overflow) {
    optimizer.ZeroGrad();
    for (const auto& e : weights.table().entries())
      optimizer.grad().f32()[e.offset] = static_cast<float>(0.01 * optimizer.loss_scale());
    if (overflow) optimizer.grad().f32()[weights.table().entries()[2].offset] = kInfinity;
    return optimizer.Update(kRate, 1.0);
  }
};

TEST(LossScaleTest, AnOptimizerSkipsLowersAndGoesOn) {
  Learning learning({.max_skipped_in_a_row = 2, .loss_scale = 256, .loss_scale_steps = 3});
  Learning calm({.loss_scale = 256, .loss_scale_steps = 3});
  // More in a row than end a run of another kind.
  for (const double down : {64.0, 16.0, 4.0}) {
    const std::string before = learning.weights.ComputeDigest();
    const UpdateResult update = learning.Update(/*overflow=*/true);
    EXPECT_FALSE(update.applied);
    EXPECT_EQ(update.why_skipped, "the gradient is not finite");
    EXPECT_EQ(learning.weights.ComputeDigest(), before);
    EXPECT_EQ(learning.optimizer.loss_scale(), down);
    EXPECT_EQ(learning.optimizer.gradients().loss_scale, static_cast<float>(down));
  }
  EXPECT_EQ(learning.optimizer.counters(),
            (Optimizer::Counters{.updates = 0, .skipped = 3, .loss_scale = {4, 0}}));
  // The same updates at other scales: the same weights, to the bit.
  for (int i = 0; i < 10; ++i) {
    const UpdateResult a = learning.Update(false), b = calm.Update(false);
    EXPECT_TRUE(a.applied);
    EXPECT_EQ(a.grad_norm, b.grad_norm);
  }
  EXPECT_EQ(learning.weights.ComputeDigest(), calm.weights.ComputeDigest());
  EXPECT_EQ(learning.optimizer.loss_scale(), 32) << "doubled three times";
  EXPECT_EQ(learning.optimizer.counters().loss_scale.steps, 1);
  std::map<std::string, double> metrics;
  learning.optimizer.AddMetrics("", metrics);
  EXPECT_EQ(metrics, (std::map<std::string, double>{{"optim/loss_scale", 32}}));
  // A loss that is none is no overflow, and counts.
  learning.optimizer.ZeroGrad();
  EXPECT_FALSE(learning.optimizer.Update(kRate, std::nan("")).applied);
  EXPECT_EQ(learning.optimizer.loss_scale(), 32);
  EXPECT_EQ(learning.optimizer.counters().skipped_in_a_row, 1);
}

TEST(LossScaleTest, ItDividesBeforeClipping) {
  for (const bool by_value : {false, true}) {
    configs::OptimizerConfig options{.grad_clip = by_value ? 0.0 : 0.02,
                                     .clip_value = by_value ? 0.004 : 0.0};
    std::vector<std::string> digests;
    std::vector<double> norms;
    for (const double scale : {1.0, 65536.0}) {
      options.loss_scale = scale;
      Learning learning(options);
      for (int i = 0; i < 3; ++i) norms.push_back(learning.Update(false).grad_norm);
      EXPECT_NEAR(norms.back(),
                  (by_value ? 0.004 : 0.01) *
                      std::sqrt(static_cast<double>(learning.weights.table().entries().size())),
                  1e-6);
      if (by_value) {
        EXPECT_GT(learning.optimizer.TakeClippedShare().value(), 0);
      }
      digests.push_back(learning.weights.ComputeDigest());
    }
    EXPECT_EQ(digests[0], digests[1]) << by_value;
    EXPECT_EQ(norms[0], norms[3]);
  }
}

TEST(LossScaleTest, GradientsThatNeverFitEndTheRunWithTheReason) {
  Learning learning({.loss_scale = 16});
  EXPECT_FALSE(learning.Update(true).applied);
  EXPECT_FALSE(learning.Update(true).applied);
  const std::string before = learning.weights.ComputeDigest();
  EXPECT_THROW(learning.Update(true), Error);
  EXPECT_EQ(learning.weights.ComputeDigest(), before);
}

TEST(LossScaleTest, ItsCountersComeBack) {
  Learning learning({.loss_scale = 256, .loss_scale_steps = 4}),
      other({.loss_scale = 256, .loss_scale_steps = 4});
  learning.Update(true);
  learning.Update(false);
  other.optimizer.Restore(learning.optimizer.counters());
  EXPECT_EQ(other.optimizer.counters(), learning.optimizer.counters());
  EXPECT_EQ(other.optimizer.gradients().loss_scale, 64);
}

TEST(LossScaleTest, RanksDecideAlike) {
  for (const int64_t zero : {0, 1}) {
    std::vector<Optimizer::Counters> counters(2);
    std::vector<std::string> digests(2);
    AsRanks(2, [&](Ranks* ranks) {
      Learning learning({.loss_scale = 256, .loss_scale_steps = 2}, ranks, zero);
      const auto rank = static_cast<size_t>(ranks->rank());
      const std::string before = learning.weights.ComputeDigest();
      EXPECT_FALSE(learning.Update(/*overflow=*/rank == 1).applied) << "one of them has it";
      EXPECT_EQ(learning.weights.ComputeDigest(), before);
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(learning.Update(false).applied);
      counters[rank] = learning.optimizer.counters();
      digests[rank] = learning.weights.ComputeDigest();
    });
    EXPECT_EQ(counters[0], counters[1]);
    EXPECT_EQ(counters[0].loss_scale, (LossScale::State{.scale = 128, .steps = 1}));
    EXPECT_EQ(digests[0], digests[1]);
  }
}

}  // namespace
}  // namespace plumb::learner
