// Training whose layers' products read FP8 (model.products = "fp8") beside training in the model's
// type: 500 steps of both, their losses and on a GPU their times, printed.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "kernels/device/compute_capability.h"
#include "learner/update/train_step.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

struct Curve {
  std::vector<double> loss;
  double seconds = 0;  // a step, of all but the first ten
};

Curve Train(const Stream& stream, const policy_model::ModelShape& shape, bool fp8, int sequences,
            int steps, double rate, double std) {
  policy_model::Weights weights(shape, stream, DType::kBFloat16);
  weights.Initialise(2, std);
  Optimizer optimizer(weights, {.weight_decay = 0});
  policy_model::Transformer transformer(shape, stream, DType::kBFloat16);
  transformer.UseProducts(fp8 ? configs::Products::kFp8 : configs::Products::kDType);
  TrainStep train(transformer, 16384);
  train.UsePartsOf(weights, optimizer);
  Curve curve;
  auto begin = std::chrono::steady_clock::now();
  for (int step = 0; step < steps; ++step) {
    if (step == 10) begin = std::chrono::steady_clock::now();
    const auto data = RandomDemonstrations(sequences, static_cast<uint64_t>(step) % 7 + 1);
    const double loss = AccumulateMeanLoss(train, optimizer, weights, data);
    EXPECT_TRUE(optimizer.Update(rate, loss).applied);
    curve.loss.push_back(loss);
  }
  curve.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() /
                  (steps - 10);
  return curve;
}

// The largest gap of the means of 20 steps, printed with the curves.
double Compare(const Curve& dtype, const Curve& fp8) {
  double gap = 0;
  constexpr size_t kMean = 20;
  for (size_t first = 0; first + kMean <= dtype.loss.size(); first += kMean) {
    double a = 0, b = 0;
    for (size_t i = first; i < first + kMean; ++i) {
      a += dtype.loss[i] / kMean;
      b += fp8.loss[i] / kMean;
    }
    gap = std::max(gap, std::abs(a - b));
    if (first % (5 * kMean) == 0)
      std::printf("steps %zu to %zu: bfloat16 %.5f, fp8 %.5f\n", first, first + kMean - 1, a, b);
  }
  std::printf(
      "largest gap of means of %zu steps %.5f nats; last %.5f and %.5f; %.2f ms and %.2f "
      "ms a step (x %.2f)\n",
      kMean, gap, dtype.loss.back(), fp8.loss.back(), 1e3 * dtype.seconds, 1e3 * fp8.seconds,
      dtype.seconds / fp8.seconds);
  return gap;
}

TEST(Fp8TrainingTest, TheLossOf500StepsIsThatOfTheModelsType) {
  policy_model::SetThreads(1);
  const Curve dtype = Train(Device::kCpu, TinyShape(), false, 12, 500, 3e-3, 0.2),
              fp8 = Train(Device::kCpu, TinyShape(), true, 12, 500, 3e-3, 0.2);
  EXPECT_NE(dtype.loss, fp8.loss);
  EXPECT_GT(dtype.loss.front(), 2.0);
  EXPECT_LT(Compare(dtype, fp8), 0.02);
  EXPECT_LT(fp8.loss.back(), 0.005);
}

TEST(Fp8TrainingCuda, TheLossOf500StepsIsThatOfTheModelsTypeAndTheTimePrinted) {
  if (!kernels::CudaAvailable() || kernels::ComputeCapability(Device::Cuda(0)) < 89)
    GTEST_SKIP() << "NO GPU of capability 8.9: training in FP8 was NOT tried here";
  const OwnedStream stream(Device::Cuda(0));
  policy_model::ModelShape shape = TinyShape();
  shape.hidden = 2048;
  shape.heads = shape.kv_heads = 16;
  shape.head_dim = 128;
  shape.ffn = 8192;
  const Curve dtype = Train(stream, shape, false, 800, 500, 1e-4, 0.02),
              fp8 = Train(stream, shape, true, 800, 500, 1e-4, 0.02);
  EXPECT_LT(Compare(dtype, fp8), 0.15);
  EXPECT_LT(fp8.loss.back(), 0.1);
}

}  // namespace
}  // namespace plumb::learner
