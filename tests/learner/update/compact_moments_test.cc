// Moments of 8 bits and weights without masters in the optimizer: what they hold, what a checkpoint
// keeps, and that training with them is training.
#include "learner/update/compact_moments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "learner/update/checkpoint.h"
#include "learner/update/checkpoint_size.h"
#include "learner/update/optimizer_file.h"
#include "policy_model/files/safetensors.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using configs::Masters;
using configs::Moments;
using plumb::testing::TempFolder;
using policy_model::FlatBuffer;

configs::OptimizerConfig Options(Masters masters, Moments moments) {
  configs::OptimizerConfig options;
  options.masters = masters;
  options.moments = moments;
  options.weight_decay = 0;
  return options;
}

struct Kept {
  DType dtype;
  Masters masters;
  Moments moments;
};
const std::vector<Kept> kAll = {{DType::kFloat32, Masters::kFloat32, Moments::kFloat32},
                                {DType::kFloat32, Masters::kFloat32, Moments::kInt8},
                                {DType::kBFloat16, Masters::kFloat32, Moments::kInt8},
                                {DType::kBFloat16, Masters::kNone, Moments::kFloat32},
                                {DType::kBFloat16, Masters::kNone, Moments::kInt8}};

std::vector<std::byte> Bytes(const FlatBuffer& flat) {
  std::vector<std::byte> out(flat.bytes());
  flat.CopyToHost(out);
  return out;
}

// A tiny model that learns the pattern of RandomDemonstrations.
struct Learning {
  policy_model::Weights weights;
  Optimizer optimizer;
  policy_model::Transformer transformer;
  TrainStep train;
  std::vector<Demonstration> data = RandomDemonstrations(24, 3);

  explicit Learning(const Kept& kept, uint64_t seed = 1)
      : weights(TinyShape(), Device::kCpu, kept.dtype),
        optimizer(Drawn(weights), Options(kept.masters, kept.moments), {.seed = seed}),
        transformer(TinyShape(), Device::kCpu, kept.dtype),
        train(transformer, 512) {
    policy_model::SetThreads(1);
  }
  static policy_model::Weights& Drawn(policy_model::Weights& weights) {
    weights.Initialise(2, 0.2);
    return weights;
  }
  // Mean loss before the step.
  double Step(double rate) {
    const double loss = AccumulateMeanLoss(train, optimizer, weights, data);
    EXPECT_TRUE(optimizer.Update(rate, loss).applied);
    return loss;
  }
  std::vector<std::vector<std::byte>> State() {
    std::vector<std::vector<std::byte>> out = {Bytes(weights.flat())};
    for (Optimizer::SetState& state : optimizer.sets()) {
      out.push_back(Bytes(state.own_master));
      for (FlatBuffer* each : state.moments()) out.push_back(Bytes(*each));
    }
    return out;
  }
};

TEST(CompactMomentsTest, NoBlockReachesOverTwoTensors) {
  const policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  CompactMoments moments(Device::kCpu, weights.table());
  int64_t blocks = 0;
  const auto& entries = weights.table().entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(moments.first_block(i), blocks);
    blocks += kernels::MomentBlocks(entries[i].elements);
    EXPECT_EQ(moments.Of(i).codes,
              static_cast<uint8_t*>(moments.codes().data()) + entries[i].offset);
  }
  EXPECT_EQ(moments.scales().elements(), blocks);
  EXPECT_EQ(static_cast<int64_t>(moments.codes().bytes()), weights.flat().elements());
}

TEST(CompactMomentsTest, WhatIsHeldIsWhatWasAskedFor) {
  for (const Kept& kept : kAll) {
    Learning learning(kept);
    Optimizer::SetState& state = learning.optimizer.sets().front();
    const int64_t n = learning.weights.flat().elements();
    EXPECT_EQ(state.has_own_master(),
              kept.dtype == DType::kBFloat16 && kept.masters == Masters::kFloat32);
    size_t bytes = 0;
    for (FlatBuffer* each : state.moments()) bytes += each->bytes();
    const auto size = static_cast<size_t>(n);
    if (kept.moments == Moments::kFloat32) {
      EXPECT_EQ(bytes, 8 * size);
    } else {
      EXPECT_LT(bytes, size * 23 / 10) << "2 bytes, and scales";
    }
  }
}

// The loss of every way falls as that of exact state does.
TEST(CompactMomentsTest, TheLossFallsAsWithExactState) {
  constexpr int kSteps = 60;
  std::vector<std::vector<double>> curves;
  for (const Kept& kept : kAll) {
    Learning learning(kept);
    auto& curve = curves.emplace_back();
    for (int i = 0; i < kSteps; ++i) curve.push_back(learning.Step(5e-3));
  }
  EXPECT_GT(curves[0].front(), 2.5);
  EXPECT_LT(curves[0].back(), 1.0);
  for (size_t k = 1; k < curves.size(); ++k) {
    double gap = 0;
    for (int i = 0; i < kSteps; ++i)
      gap = std::max(
          gap, std::abs(curves[k][static_cast<size_t>(i)] - curves[0][static_cast<size_t>(i)]));
    RecordProperty("gap" + std::to_string(k), std::to_string(gap));
    std::printf("way %zu: last loss %.4f (exact %.4f), largest gap of %d steps %.4f nats\n", k,
                curves[k].back(), curves[0].back(), kSteps, gap);
    EXPECT_LT(gap, 0.03) << k;
    EXPECT_NEAR(curves[k].back(), curves[0].back(), 0.002) << k;
  }
}

TEST(CompactMomentsTest, ACheckpointGoesOnBitForBit) {
  for (const Kept& kept : kAll) {
    const TempFolder folder;
    Learning whole(kept);
    for (int i = 0; i < 3; ++i) whole.Step(5e-3);
    Checkpoints checkpoints(folder / "c", 1, "");
    checkpoints.Save({.step = 3,
                      .policy = {.version = 3, .digest = whole.weights.ComputeDigest()},
                      .counters = whole.optimizer.counters(),
                      .moment_steps = whole.optimizer.moment_steps(),
                      .moments = true},
                     whole.weights, whole.optimizer);
    Learning again(kept);
    again.Step(1e-2);  // other weights and moments than those that are read
    const auto found = checkpoints.FindNewest();
    ASSERT_TRUE(found);
    checkpoints.Load(*found, again.weights, again.optimizer);
    EXPECT_EQ(again.State(), whole.State());
    for (int i = 0; i < 2; ++i) {
      whole.Step(5e-3);
      again.Step(5e-3);
    }
    EXPECT_EQ(again.State(), whole.State());

    const std::string file = found->path + "/optimizer.safetensors";
    const auto size = static_cast<double>(RealFileSystem().FileSize(file));
    const auto told = static_cast<double>(OptimizerBytes(whole.optimizer, true));
    EXPECT_NEAR(size, told, 8000) << "but for the header";
    const auto reader = policy_model::SafetensorsReader::OpenFile(file);
    EXPECT_EQ(reader->tensors().contains("m8.embedding"), kept.moments == Moments::kInt8);
    EXPECT_EQ(reader->tensors().contains("m.embedding"), kept.moments == Moments::kFloat32);
    EXPECT_EQ(reader->tensors().contains("low.embedding"),
              kept.dtype == DType::kBFloat16 && kept.masters == Masters::kFloat32);
  }
}

TEST(CompactMomentsTest, WithoutMastersAndMomentsThereIsNoFile) {
  const TempFolder folder;
  Learning learning({DType::kBFloat16, Masters::kNone, Moments::kInt8});
  learning.Step(1e-3);
  SaveOptimizer(folder / "o", learning.optimizer, /*moments=*/false);
  EXPECT_FALSE(RealFileSystem().Exists(folder / "o"));
  EXPECT_EQ(OptimizerBytes(learning.optimizer, false), 0);
  LoadOptimizer(folder / "o", learning.optimizer, /*moments=*/false);
  for (FlatBuffer* each : learning.optimizer.sets().front().moments())
    EXPECT_EQ(Bytes(*each), std::vector<std::byte>(each->bytes()));
}

// The seed is the only thing that chance hangs on.
TEST(CompactMomentsTest, TheSeedSaysTheRoundings) {
  const Kept kept{DType::kBFloat16, Masters::kNone, Moments::kInt8};
  const auto after = [&](uint64_t seed) {
    Learning learning(kept, seed);
    for (int i = 0; i < 2; ++i) learning.Step(1e-3);
    return learning.State();
  };
  EXPECT_EQ(after(1), after(1));
  EXPECT_NE(after(1), after(2));
}

// An update that is not made draws nothing and changes nothing.
TEST(CompactMomentsTest, ASkippedUpdateLeavesEveryBit) {
  Learning learning({DType::kBFloat16, Masters::kNone, Moments::kInt8});
  learning.Step(1e-3);
  const auto before = learning.State();
  learning.optimizer.grad().f32()[7] = NAN;
  EXPECT_FALSE(learning.optimizer.Update(1e-3, 1.0).applied);
  EXPECT_EQ(learning.State(), before);
}

}  // namespace
}  // namespace plumb::learner
