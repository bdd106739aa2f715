// policy_model/transformer.h on CUDA against the CPU: the same weights and batch, forward, backward
// and values.
//
// Tolerance: float32 sums differ in order only: relative error (norm of the difference over the
// norm) below 2e-5. In bfloat16 each stage rounds to 8 bits (2^-9 = 0.002 relative); a two-layer
// model has about 20 roundings in a row, which add up like sqrt(20) of them: below 0.03.
#include <gtest/gtest.h>

#include <cmath>

#include "common/base/rng.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape(bool tied, bool bias, int64_t kv_heads) {
  return {.family = bias ? "qwen2" : "llama",
          .layers = 2,
          .hidden = 64,
          .heads = 4,
          .kv_heads = kv_heads,
          .head_dim = 16,
          .ffn = 96,
          .vocab = 131,
          .max_positions = 128,
          .tied = tied,
          .attention_bias = bias,
          .eos_tokens = {2}};
}

PackedBatch Batch(bool shared) {
  PackedBatch batch;
  batch.Clear();
  RandomStream random(3, 1);
  for (int n : {7, 65, 1, 33}) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(131)));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  if (!shared) return batch;
  // A prompt that three answers go on from.
  std::vector<int32_t> prompt;
  for (int i = 0; i < 41; ++i) prompt.push_back(static_cast<int32_t>(random.NextBelow(131)));
  batch.AppendPrefix(std::span(prompt).first(40));
  for (int n : {3, 64, 1}) {
    std::vector<int32_t> tokens = prompt;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(131)));
    std::vector<uint8_t> mask(tokens.size(), 0);
    std::fill(mask.begin() + 41, mask.end(), uint8_t{1});
    batch.Append(tokens, mask, 40);
  }
  return batch;
}

double RelativeError(std::span<const float> a, std::span<const float> b) {
  double diff = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    diff += std::pow(double{a[i]} - double{b[i]}, 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(diff / std::max(norm, 1e-30));
}

std::vector<float> ToHost(const FlatBuffer& buffer) {
  std::vector<float> out(static_cast<size_t>(buffer.elements()));
  buffer.CopyToHost(std::as_writable_bytes(std::span<float>(out)));
  return out;
}

struct Pass {
  std::vector<float> logprob, entropy, grad, logits;
};

Pass RunPass(const ModelShape& shape, Device device, DType dtype, bool shared) {
  const OwnedStream stream(device);
  Weights weights(shape, stream, dtype);
  weights.Initialise(4, 0.2);
  Transformer transformer(shape, stream, dtype);
  const PackedBatch batch = Batch(shared);
  Pass out;
  out.logprob.resize(batch.rows.size());
  out.entropy.resize(batch.rows.size());
  out.logits.resize(batch.rows.size() * 131);
  transformer.Logits(weights, batch, out.logits);
  transformer.Forward(weights, batch, {.temperature = 0.8f, .entropy = true}, true, out.logprob,
                      out.entropy);
  std::vector<float> g_logprob(batch.rows.size()), g_entropy(batch.rows.size());
  RandomStream random(5, 5);
  for (float& g : g_logprob) g = random.NextNormal();
  for (float& g : g_entropy) g = 0.1f * random.NextNormal();
  FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
  transformer.Backward(weights, batch, g_logprob, g_entropy, grad);
  out.grad = ToHost(grad);
  return out;
}

class TransformerCudaTest : public ::testing::TestWithParam<std::tuple<DType, bool, bool, int>> {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: the model was not run on CUDA";
  }
};

TEST_P(TransformerCudaTest, EqualsTheCpu) {
  const auto [dtype, tied, bias, kv_heads] = GetParam();
  const double tolerance = dtype == DType::kFloat32 ? 2e-5 : 0.03;
  const ModelShape shape = Shape(tied, bias, kv_heads);
  // The reference in float32 from the same rounded weights would hide nothing: bfloat16 on the CPU
  // rounds where CUDA does.
  for (const bool shared : {false, true}) {
    const Pass cpu = RunPass(shape, Device::kCpu, dtype, shared),
               cuda = RunPass(shape, Device::Cuda(0), dtype, shared);
    EXPECT_LT(RelativeError(cuda.logits, cpu.logits), tolerance);
    EXPECT_LT(RelativeError(cuda.logprob, cpu.logprob), tolerance);
    EXPECT_LT(RelativeError(cuda.entropy, cpu.entropy), tolerance);
    const TensorTable table(shape);
    for (const TensorEntry& e : table.entries()) {
      const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
      EXPECT_LT(
          RelativeError(std::span(cuda.grad).subspan(at, n), std::span(cpu.grad).subspan(at, n)),
          3 * tolerance)
          << e.name;
    }
  }
}

TEST_P(TransformerCudaTest, ScalarHeadEqualsTheCpu) {
  const auto [dtype, tied, bias, kv_heads] = GetParam();
  const double tolerance = dtype == DType::kFloat32 ? 2e-5 : 0.03;
  const PackedBatch batch = Batch(true);
  std::vector<float> values[2], grads[2];
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
    const OwnedStream stream(device);
    Weights policy(Shape(tied, bias, kv_heads), stream, dtype);
    policy.Initialise(4, 0.2);
    const Weights model = ScalarHeadFrom(policy, 3);
    Transformer transformer(model.shape(), stream, dtype);
    std::vector<float>& v = values[device.is_cuda()];
    v.resize(batch.rows.size());
    transformer.ForwardValues(model, batch, true, v);
    std::vector<float> g(v.size());
    RandomStream random(5, 5);
    for (float& x : g) x = random.NextNormal();
    FlatBuffer grad(stream, DType::kFloat32, model.flat().elements());
    transformer.BackwardValues(model, batch, g, grad);
    grads[device.is_cuda()] = ToHost(grad);
  }
  EXPECT_LT(RelativeError(values[1], values[0]), tolerance);
  EXPECT_LT(RelativeError(grads[1], grads[0]), 3 * tolerance);
}

TEST_P(TransformerCudaTest, SharedHeadEqualsTheCpu) {
  const auto [dtype, tied, bias, kv_heads] = GetParam();
  const double tolerance = dtype == DType::kFloat32 ? 2e-5 : 0.03;
  const PackedBatch batch = Batch(true);
  std::vector<float> values[2], grads[2], head_grads[2];
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
    const OwnedStream stream(device);
    Weights policy(Shape(tied, bias, kv_heads), stream, dtype);
    policy.Initialise(4, 0.2);
    const Weights head = ValueHeadFor(policy, 3);
    Transformer transformer(policy.shape(), stream, dtype);
    std::vector<float>& v = values[device.is_cuda()];
    v.resize(batch.rows.size());
    std::vector<float> logprob(v.size()), entropy(v.size()), g(v.size()), g_logprob(v.size());
    transformer.Forward(policy, batch, {.temperature = 0.8f, .entropy = true}, true, logprob,
                        entropy);
    transformer.HeadValues(head, v);
    RandomStream random(5, 5);
    for (float& x : g) x = random.NextNormal();
    for (float& x : g_logprob) x = random.NextNormal();
    FlatBuffer grad(stream, DType::kFloat32, policy.flat().elements());
    FlatBuffer head_grad(stream, DType::kFloat32, head.flat().elements());
    const Transformer::SharedHead shared{.head = &head, .g_values = g, .grad = &head_grad};
    transformer.Backward(policy, batch, g_logprob, {}, grad, &shared);
    grads[device.is_cuda()] = ToHost(grad);
    head_grads[device.is_cuda()] = ToHost(head_grad);
  }
  EXPECT_LT(RelativeError(values[1], values[0]), tolerance);
  EXPECT_LT(RelativeError(grads[1], grads[0]), 3 * tolerance);
  EXPECT_LT(RelativeError(head_grads[1], head_grads[0]), 3 * tolerance);
}

INSTANTIATE_TEST_SUITE_P(Models, TransformerCudaTest,
                         ::testing::Combine(::testing::Values(DType::kFloat32, DType::kBFloat16),
                                            ::testing::Bool(), ::testing::Bool(),
                                            ::testing::Values(2, 4)));

TEST(WeightsCuda, TheDigestComputedThereIsTheHosts) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: the digest on a device was NOT tested here";
  const OwnedStream stream(Device::Cuda(0));
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Weights cpu(Shape(false, true, 2), Device::kCpu, dtype),
        cuda(Shape(false, true, 2), stream, dtype);
    cpu.Initialise(5, 0.1);
    cuda.Initialise(5, 0.1);
    EXPECT_EQ(cuda.ComputeDigest(), cpu.ComputeDigest());
  }
}

}  // namespace
}  // namespace plumb::policy_model
