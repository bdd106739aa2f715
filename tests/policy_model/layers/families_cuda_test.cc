// Every family of policy_model/families/family.h on CUDA against the CPU, which families_test.cc
// holds to transformers: log-probs and the gradient of every tensor, of sequences by themselves and
// of answers that go on from one prompt.
//
// Tolerance. float32: sums in another order, through at most 7 layers forward and back; the
// reference's own such errors are up to 4e-6 of a gradient (tests/golden/families.json, "gap"), and
// 25 times that is room for two of them and longer sequences. bfloat16: both round to 8 bits at
// every step, each in its own order, so CUDA has to be about as near to float32 from the same
// weights as the CPU is. Tokens take the same experts in all of them: at a rounding's distance two
// experts may change places, which is no error.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/families/model_config.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr double kFloatError = 1e-4;

std::vector<int32_t> Tokens(int n, int seed) {
  RandomStream random(17, static_cast<uint64_t>(seed));
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(37)));
  return tokens;
}

// `longest`: positions of the model; longrope has its original ones alone.
PackedBatch Batch(int longest) {
  constexpr int kPrefix = 17;
  PackedBatch batch;
  batch.Clear();
  for (const int n : {23, 5, std::min(60, longest)}) {
    const auto tokens = Tokens(n, n);
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  const auto prefix = Tokens(kPrefix, 7);
  batch.AppendPrefix(prefix);
  for (const int own : {3, std::min(40, longest - kPrefix), 1}) {
    auto tokens = prefix;
    const auto more = Tokens(own, 100 + own);
    tokens.insert(tokens.end(), more.begin(), more.end());
    std::vector<uint8_t> mask(tokens.size(), 0);
    for (size_t i = prefix.size() + 1; i < tokens.size(); ++i) mask[i] = 1;
    batch.Append(tokens, mask, static_cast<int32_t>(prefix.size()));
  }
  return batch;
}

struct Numbers {
  std::vector<float> logprob, grad;
  std::vector<int32_t> experts;
};

// `values`: the weights, as float.
Numbers RunModel(const ModelShape& shape, Device device, DType dtype, std::span<const float> values,
                 const std::vector<int32_t>& experts) {
  const OwnedStream stream(device);
  Weights weights(shape, stream, dtype);
  std::vector<std::byte> bytes(weights.flat().bytes());
  ConvertFloat(values, dtype, bytes.data());
  weights.flat().CopyFromHost(bytes);
  Transformer model(shape, stream, dtype);
  PackedBatch batch = Batch(static_cast<int>(shape.max_positions));
  batch.experts = experts;
  Numbers out;
  out.logprob.resize(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, true, out.logprob, {});
  if (device.is_cpu()) out.experts.assign(model.experts().begin(), model.experts().end());
  std::vector<float> g;
  RandomStream random(5, 5);
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g, {}, grad);
  out.grad.resize(static_cast<size_t>(grad.elements()));
  grad.CopyToHost(std::as_writable_bytes(std::span<float>(out.grad)));
  return out;
}

double Distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

double Norm(std::span<const float> a) {
  double sum = 0;
  for (const float x : a) sum += std::pow(static_cast<double>(x), 2);
  return std::sqrt(sum);
}

class FamiliesCudaTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: the family was NOT run on CUDA here";
    WriteFamilyFolder(GetParam(), temp_.path());
    shape_ = ReadModelConfig(temp_.path(), LongestOf(GetParam()));
  }

  // Of the family's weights, as `dtype` holds them.
  std::vector<float> Values(DType dtype) const {
    Weights weights(shape_, Device::kCpu, DType::kFloat32);
    weights.Load(temp_.path());
    const std::span<const float> all(weights.flat().f32(),
                                     static_cast<size_t>(weights.flat().elements()));
    std::vector<float> out(all.begin(), all.end());
    if (dtype == DType::kBFloat16) {
      for (float& x : out) x = ToFloat(ToBFloat16(x));
    }
    return out;
  }

  testing::TempFolder temp_;
  ModelShape shape_;
};

TEST_P(FamiliesCudaTest, LogProbsAndGradientsAreTheCpus) {
  const std::vector<float> values = Values(DType::kFloat32);
  const Numbers cpu = RunModel(shape_, Device::kCpu, DType::kFloat32, values, {}),
                cuda = RunModel(shape_, Device::Cuda(0), DType::kFloat32, values, cpu.experts);
  EXPECT_LT(Distance(cuda.logprob, cpu.logprob), kFloatError * Norm(cpu.logprob));
  const double all = Norm(cpu.grad);
  const TensorTable table(shape_);
  for (const TensorEntry& e : table.entries()) {
    const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
    const auto a = std::span(cuda.grad).subspan(at, n), b = std::span(cpu.grad).subspan(at, n);
    EXPECT_LT(Distance(a, b), kFloatError * Norm(b) + 1e-6 * all) << e.name << " of " << Norm(b);
  }
  // The same numbers once more: no sum depends on which block comes first. What tokens add to the
  // embedding does.
  const Numbers again = RunModel(shape_, Device::Cuda(0), DType::kFloat32, values, cpu.experts);
  EXPECT_EQ(again.logprob, cuda.logprob);
}

TEST_P(FamiliesCudaTest, Bfloat16IsAsNearToFloat32AsOnTheCpu) {
  const std::vector<float> values = Values(DType::kBFloat16);
  const Numbers exact = RunModel(shape_, Device::kCpu, DType::kFloat32, values, {});
  const Numbers cpu = RunModel(shape_, Device::kCpu, DType::kBFloat16, values, exact.experts),
                cuda = RunModel(shape_, Device::Cuda(0), DType::kBFloat16, values, exact.experts);
  const auto near = [&](std::span<const float> a, std::span<const float> b,
                        std::span<const float> want, double factor, const std::string& what) {
    EXPECT_LE(Distance(a, want), factor * Distance(b, want) + 0.004 * Norm(want)) << what;
  };
  near(cuda.logprob, cpu.logprob, exact.logprob, 2, "log-probs");
  near(cuda.grad, cpu.grad, exact.grad, 2, "gradient");
  const TensorTable table(shape_);
  for (const TensorEntry& e : table.entries()) {
    // A tensor's own error is a draw of few numbers.
    const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
    near(std::span(cuda.grad).subspan(at, n), std::span(cpu.grad).subspan(at, n),
         std::span(exact.grad).subspan(at, n), 4, e.name);
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesCudaTest, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace plumb::policy_model
