// optimizer.gradients = "bfloat16": what is kept is the sum that float32 would have, rounded; and
// training with it is training.
#include "learner/update/gradients/gradient_rooms.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/error.h"
#include "kernels/device/stream.h"
#include "learner/update/part_keeper.h"
#include "learner/update/train_step.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using configs::Gradients;
using policy_model::FlatBuffer;
using policy_model::ModelShape;
using policy_model::Weights;

// The CPU, or a stream of the first GPU.
Stream On(bool gpu) {
  if (!gpu) return Device::kCpu;
  static const OwnedStream stream(Device::Cuda(0));
  return stream;
}

struct Case {
  ModelShape shape = TinyShape();
  DType dtype = DType::kFloat32;
  int64_t budget = 4096;  // tokens a micro-batch
  bool recompute = false;
  TrainingRules rules = {};
  configs::OptimizerConfig options = {};
  bool gpu = false;
};

ModelShape Untied() {
  ModelShape shape = TinyShape();
  shape.tied = false;
  shape.layers = 3;
  return shape;
}

// A model with the gradients of one batch, and its next steps.
struct Learning {
  Weights weights;
  Optimizer optimizer;
  policy_model::Transformer transformer;
  TrainStep train;
  std::vector<Demonstration> data = RandomDemonstrations(24, 3);

  Learning(const Case& of, Gradients gradients)
      : weights(of.shape, On(of.gpu), of.dtype),
        optimizer(Drawn(weights), With(of.options, gradients), of.rules),
        transformer(of.shape, On(of.gpu), of.dtype),
        train(transformer, of.budget) {
    policy_model::SetThreads(1);
    transformer.RecomputeLayers(of.recompute);
    train.UsePartsOf(weights, optimizer);
  }
  static Weights& Drawn(Weights& weights) {
    weights.Initialise(2, 0.2);
    return weights;
  }
  static configs::OptimizerConfig With(configs::OptimizerConfig options, Gradients gradients) {
    options.gradients = gradients;
    options.weight_decay = 0;
    return options;
  }
  double Accumulate() { return AccumulateMeanLoss(train, optimizer, weights, data); }
  double Step(double rate) {
    const double loss = Accumulate();
    EXPECT_TRUE(optimizer.Update(rate, loss).applied);
    return loss;
  }
  std::vector<float> Grad() {
    FlatBuffer& grad = optimizer.grad();
    std::vector<std::byte> bytes(grad.bytes());
    grad.CopyToHost(bytes);
    std::vector<float> out(static_cast<size_t>(grad.elements()));
    policy_model::ConvertToFloat(bytes.data(), grad.dtype(), out);
    return out;
  }
};

std::vector<Case> Cases() {
  return {{},
          {.shape = Untied()},
          {.dtype = DType::kBFloat16},
          {.recompute = true},
          {.rules = {.frozen = {"layers.0.mlp"}}},
          {.rules = {.learning_rates = {{"layers.1", 0.5}}}}};
}

// One micro-batch: what float32 keeps, to the nearest. A tied matrix joins twice, as the head and
// as the embedding: it is within one more rounding.
TEST(GradientRoomsTest, OfOneMicroBatchTheyAreTheRoundedOnes) {
  for (const Case& of : Cases()) {
    Learning wide(of, Gradients::kFloat32), narrow(of, Gradients::kBFloat16);
    EXPECT_EQ(narrow.optimizer.grad().dtype(), DType::kBFloat16);
    EXPECT_EQ(wide.optimizer.parts(), nullptr);
    wide.Accumulate();
    narrow.Accumulate();
    const auto exact = wide.Grad(), kept = narrow.Grad();
    ASSERT_EQ(exact.size(), kept.size());
    float largest = 0;
    for (const float x : exact) largest = std::max(largest, std::abs(x));
    size_t other = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      const bool same = kept[i] == ToFloat(ToBFloat16(exact[i]));
      other += !same;
      // The first of the two that a tied matrix has may be larger than their sum.
      ASSERT_NEAR(kept[i], exact[i], largest / 128) << i;
    }
    const int64_t tied = of.shape.tied ? of.shape.vocab * of.shape.hidden : 0;
    EXPECT_LE(static_cast<int64_t>(other), tied);
    const double squares =
        std::inner_product(kept.begin(), kept.end(), kept.begin(), 0.0, std::plus<>(),
                           [](float a, float b) { return double(a) * double(b); });
    EXPECT_NEAR(narrow.optimizer.Update(1e-3, 1.0).grad_norm, std::sqrt(squares),
                1e-9 * std::sqrt(squares));
  }
}

// Of many micro-batches each adds one rounding, of at most 2^-8 of the sum, right in the mean.
TEST(GradientRoomsTest, OfManyMicroBatchesTheErrorIsThatOfTheirRoundings) {
  for (Case of : Cases()) {
    of.budget = 32;
    Learning wide(of, Gradients::kFloat32), narrow(of, Gradients::kBFloat16);
    wide.Accumulate();
    narrow.Accumulate();
    const auto exact = wide.Grad(), kept = narrow.Grad();
    double off = 0, size = 0, along = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      const auto e = static_cast<double>(exact[i]), k = static_cast<double>(kept[i]);
      off += (k - e) * (k - e);
      size += e * e;
      along += (k - e) * e;
    }
    // At most 24 micro-batches; sums on the way may be a few times the last one.
    EXPECT_LT(std::sqrt(off / size), 3 * std::sqrt(24.0) / 256);
    EXPECT_GT(off, 0);
    EXPECT_LT(std::abs(along / size), 2e-3) << "no shorter and no longer in the mean";
    Learning again(of, Gradients::kBFloat16);
    again.Accumulate();
    EXPECT_EQ(again.Grad(), kept) << "the seed says the roundings";
  }
}

// The loss falls as it does with float32.
TEST(GradientRoomsTest, TrainingIsTraining) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool small : {false, true}) {
      Case of{.dtype = dtype, .budget = 64};
      if (small) of.options.moments = configs::Moments::kInt8;
      if (small && dtype == DType::kBFloat16) of.options.masters = configs::Masters::kNone;
      Learning wide(of, Gradients::kFloat32), narrow(of, Gradients::kBFloat16);
      double gap = 0, last = 0;
      for (int i = 0; i < 60; ++i) {
        const double a = wide.Step(5e-3), b = narrow.Step(5e-3);
        gap = std::max(gap, std::abs(a - b));
        last = a - b;
      }
      std::printf("largest gap of 60 steps %.4f nats, last %.5f\n", gap, last);
      EXPECT_LT(gap, 0.03);
      EXPECT_NEAR(last, 0, 0.002);
    }
  }
}

// On a GPU: the gradients of the CPU, and a loss that falls as it does there, for every way of
// keeping what is kept.
TEST(GradientRoomsCuda, TrainsAsTheCpuDoes) {
  if (!kernels::CudaAvailable()) {
    GTEST_SKIP() << "NO GPU: small state of the optimizer was NOT tested on one here (build with "
                    "-DPLUMB_CUDA=ON on a machine with a GPU)";
  }
  using configs::Masters;
  using configs::Moments;
  struct Way {
    DType dtype;
    Gradients gradients;
    Moments moments;
    Masters masters;
  };
  for (const Way& way :
       {Way{DType::kFloat32, Gradients::kFloat32, Moments::kInt8, {}},
        Way{DType::kFloat32, Gradients::kBFloat16, Moments::kFloat32, {}},
        Way{DType::kBFloat16, Gradients::kFloat32, Moments::kInt8, Masters::kNone},
        Way{DType::kBFloat16, Gradients::kBFloat16, Moments::kInt8, Masters::kNone},
        Way{DType::kBFloat16, Gradients::kBFloat16, Moments::kFloat32, {}}}) {
    Case of{.dtype = way.dtype, .budget = 64};
    of.options.moments = way.moments;
    of.options.masters = way.masters;
    Learning cpu(of, way.gradients);
    of.gpu = true;
    Learning gpu(of, way.gradients);
    const bool exact = way.dtype == DType::kFloat32;
    cpu.Accumulate();
    gpu.Accumulate();
    const auto a = cpu.Grad(), b = gpu.Grad();
    double off = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      off += std::pow(static_cast<double>(a[i] - b[i]), 2);
      size += std::pow(static_cast<double>(a[i]), 2);
    }
    // Draws that fall between two sums make one step of bfloat16; a bfloat16 model rounds every
    // activation.
    EXPECT_LT(std::sqrt(off / size), exact ? 5e-3 : 5e-2);
    double gap = 0, last = 0;
    for (int i = 0; i < 60; ++i) {
      const double one = cpu.Step(5e-3), two = gpu.Step(5e-3);
      gap = std::max(gap, std::abs(one - two));
      last = two;
    }
    std::printf("on a GPU: largest gap of 60 steps %.4f nats, last loss %.4f\n", gap, last);
    EXPECT_LT(gap, 0.05);
    EXPECT_LT(last, 1.0);
  }
}

// Products of the first pass of an update are written where gradients are kept, those of further
// passes join them: both are what float32 keeps, but for their roundings.
TEST(GradientRoomsCuda, ProductsAreWrittenWhereTheyAreKept) {
  if (!kernels::CudaAvailable()) {
    GTEST_SKIP() << "NO GPU: bfloat16 gradients that products write were NOT tested (build with "
                    "-DPLUMB_CUDA=ON on a machine with a GPU)";
  }
  for (const int64_t budget : {4096, 64}) {
    const Case of{.shape = Untied(), .dtype = DType::kBFloat16, .budget = budget, .gpu = true};
    Learning wide(of, Gradients::kFloat32), narrow(of, Gradients::kBFloat16);
    for (int update = 0; update < 2; ++update) {  // the second begins anew
      wide.Accumulate();
      narrow.Accumulate();
      const auto exact = wide.Grad(), kept = narrow.Grad();
      float largest = 0;
      for (const float x : exact) largest = std::max(largest, std::abs(x));
      ASSERT_GT(largest, 0.0f);
      for (size_t i = 0; i < exact.size(); ++i)
        ASSERT_NEAR(kept[i], exact[i], std::abs(exact[i]) / 32 + largest / 128)
            << i << " " << budget;
    }
  }
  using Way = policy_model::PassParts::Way;
  Learning learning({.shape = Untied(), .dtype = DType::kBFloat16, .gpu = true},
                    Gradients::kBFloat16);
  auto& rooms = dynamic_cast<GradientRooms&>(*learning.optimizer.parts());
  const auto& layer = learning.weights.table().layer(1);
  const ModelShape shape = Untied();
  const int64_t qkv = shape.qkv_width() * shape.hidden;
  learning.optimizer.ZeroGrad();
  for (const bool first : {true, false}) {
    rooms.Begin(Way::kBackward);
    rooms.Enter(Way::kBackward, 1);
    EXPECT_EQ(rooms.TakeNarrow(layer.qkv, qkv - 1), nullptr) << "a part";
    EXPECT_EQ(rooms.TakeNarrow(layer.qkv, qkv) != nullptr, first);
    rooms.Gradient(layer.down);
    EXPECT_EQ(rooms.TakeNarrow(layer.down, shape.hidden * shape.ffn), nullptr)
        << "something is there";
    rooms.Leave(Way::kBackward, 1);
    rooms.End(Way::kBackward);
  }
}

TEST(GradientRoomsTest, WhatIsNotFiniteIsSeen) {
  Learning learning({}, Gradients::kBFloat16);
  learning.Accumulate();
  static_cast<BFloat16*>(learning.optimizer.grad().data())[7] = ToBFloat16(INFINITY);
  const UpdateResult result = learning.optimizer.Update(1e-3, 1.0);
  EXPECT_FALSE(result.applied);
  EXPECT_EQ(result.why_skipped, "the gradient is not finite");
}

TEST(GradientRoomsTest, AreClippedByValue) {
  Case of;
  of.options.clip_value = 1e-3;
  Learning learning(of, Gradients::kBFloat16);
  learning.Step(1e-3);
  const auto grad = learning.Grad();
  const float most = ToFloat(ToBFloat16(1e-3f));
  EXPECT_EQ(*std::max_element(grad.begin(), grad.end()), most);
  EXPECT_GT(learning.optimizer.TakeClippedShare().value(), 0);
}

// A pass that ended with an exception has left something in the room: the next begins anew.
TEST(GradientRoomsTest, APassThatWasNotEndedLeavesNothing) {
  using Way = policy_model::PassParts::Way;
  Learning learning({}, Gradients::kBFloat16);
  auto& rooms = dynamic_cast<GradientRooms&>(*learning.optimizer.parts());
  learning.optimizer.ZeroGrad();
  rooms.Begin(Way::kBackward);
  *rooms.Gradient(learning.weights.table().embedding()) = 5;
  rooms.PassBy(Way::kBackward, TinyShape().layers);
  for (const float g : learning.Grad()) ASSERT_EQ(g, 0.0f);
  EXPECT_EQ(rooms.Weight(0), learning.weights.flat().data());
}

// A whole tensor that nothing has been added to is written instead, once; what nobody asks for
// stays as it is.
TEST(GradientRoomsTest, AnEmptyTensorIsWrittenOnce) {
  using Way = policy_model::PassParts::Way;
  Learning learning({.rules = {.frozen = {"layers.1.mlp"}}}, Gradients::kBFloat16);
  auto& rooms = dynamic_cast<GradientRooms&>(*learning.optimizer.parts());
  const auto& layer = learning.weights.table().layer(1);
  const ModelShape shape = TinyShape();
  const int64_t qkv = shape.qkv_width() * shape.hidden;
  learning.optimizer.ZeroGrad();
  rooms.Begin(Way::kBackward);
  rooms.Enter(Way::kBackward, 1);
  EXPECT_FALSE(rooms.TakeEmpty(layer.qkv, qkv - 1)) << "a part";
  EXPECT_FALSE(rooms.TakeEmpty(layer.down, shape.hidden * shape.ffn)) << "frozen";
  EXPECT_EQ(rooms.Gradient(layer.down), nullptr);
  EXPECT_TRUE(rooms.TakeEmpty(layer.qkv, qkv));
  EXPECT_FALSE(rooms.TakeEmpty(layer.qkv, qkv)) << "the second adds";
  std::fill_n(rooms.Gradient(layer.qkv), qkv, 2.0f);
  EXPECT_EQ(rooms.Gradient(layer.qkv + 3), rooms.Gradient(layer.qkv) + 3);
  EXPECT_EQ(*rooms.Gradient(layer.attention_norm), 0.0f) << "is zeroed when it is asked for";
  EXPECT_FALSE(rooms.TakeEmpty(layer.attention_norm, shape.hidden));
  *rooms.Gradient(layer.attention_norm) = 3;
  rooms.Leave(Way::kBackward, 1);
  rooms.Enter(Way::kBackward, 0);
  rooms.Leave(Way::kBackward, 0);
  rooms.End(Way::kBackward);
  double sum = 0;
  for (const float g : learning.Grad()) sum += static_cast<double>(g);
  EXPECT_EQ(sum, 2.0 * static_cast<double>(qkv) + 3);
}

TEST(GradientRoomsTest, TheRoomIsTheLargestThatIsOpenAtATime) {
  EXPECT_EQ(GradientRoomElements({10, 110, 230, 300}, false), 120);
  EXPECT_EQ(GradientRoomElements({10, 110, 230, 430}, false), 200);
  EXPECT_EQ(GradientRoomElements({10, 110, 230, 430}, true), 210);
  EXPECT_EQ(GradientRoomElements({410, 510, 630, 830}, false), 410);
}

TEST(GradientRoomsTest, WhatDoesNotGoTogetherIsSaid) {
  const auto refusal = [](const auto& make) -> std::string {
    try {
      make();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const configs::OptimizerConfig narrow{.gradients = Gradients::kBFloat16};
  EXPECT_NE(refusal([&] {
              Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
              weights.AddAdapter({.rank = 4}, 1);
              Optimizer(weights, narrow);
            }).find("an adapter is trained"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
              configs::OptimizerConfig muon = narrow;
              muon.name = configs::OptimizerName::kMuon;
              Optimizer(weights, muon);
            }).find("muon"),
            std::string::npos);
  AsRanks(2, [&](Ranks* ranks) {
    EXPECT_NE(refusal([&] {
                Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
                Optimizer(weights, narrow, {}, {.ranks = ranks});
              }).find("ranks add gradients up"),
              std::string::npos);
  });
}

}  // namespace
}  // namespace plumb::learner
