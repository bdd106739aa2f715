// Models whose tokens see beyond a window, on CUDA against the CPU, which new_models_test.cc and
// far_keys_test.cc hold to finite differences: single positions with sinks, in latent attention,
// gates, a table; log-probs and gradients of every tensor, of sequences by themselves and of
// answers that go on from one prompt.
//
// Tolerance as in families_cuda_test.cc: float32 sums in another order through three layers forward
// and back; in bfloat16 CUDA has to be about as near to float32 from the same weights as the CPU
// is. Gates are far apart, so that no set hangs on a rounding in float32; in bfloat16 sets of both
// devices may differ where gates are near, so gates are compared in float32 alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "policy_model/families/family.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/layers/far_keys.h"
#include "policy_model/memory/key_table.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr int32_t kVocab = 40;

class BeyondWindowCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable()) {
      GTEST_SKIP() << "NO GPU: what is seen beyond a window was NOT run on CUDA here";
    }
    SetThreads(1);
    const auto tensor = [&](const char* name, uint64_t seed) {
      return TensorToWrite{name, DType::kFloat32, {11, 8}, [=](std::span<std::byte> bytes) {
                             RandomStream random(seed, 9);
                             for (size_t i = 0; i < bytes.size(); i += 4) {
                               const float x = random.NextNormal();
                               std::memcpy(bytes.data() + i, &x, 4);
                             }
                           }};
    };
    WriteSafetensors(folder_ / "table.safetensors", {tensor("keys", 1), tensor("values", 2)}, {});
  }

  static ModelShape Plain() {
    ModelShape s;
    s.family = "plumb";
    s.layers = 3, s.hidden = 32, s.heads = 4, s.kv_heads = 2, s.head_dim = 8, s.ffn = 64;
    s.vocab = kVocab, s.max_positions = 96, s.window = 6;
    return s;
  }
  static ModelShape Single() {
    ModelShape s = Plain();
    s.global_every = 5;
    s.sinks = true;
    for (int64_t l = 0; l < s.layers; ++l) s.layer_norms.push_back(l % 2 == 0 ? 1 : 0);
    s.final_layer_norm = true;
    return s;
  }
  static ModelShape Latent() {
    ModelShape s = Plain();
    s.global_every = 5;
    s.kv_heads = s.heads;
    s.latent = {.kv_rank = 16, .nope = 8, .rope = 4, .value = 8};
    s.head_dim = s.latent.head();
    return s;
  }
  ModelShape Scaled(int64_t gate_top_k, bool table) const {
    ModelShape s = Plain();
    s.gate_top_k = gate_top_k;
    if (table) s.table = DescribeKeyTable(folder_ / "table.safetensors", 8);
    const std::vector<std::string> scales = {"local", "global", table ? "memory" : "local"};
    SetScales(scales, "test", s);
    return s;
  }

 private:
  testing::TempFolder folder_;
};

std::vector<int32_t> Tokens(int n, uint64_t seed) {
  RandomStream random(seed, 1);
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
  return tokens;
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  for (const int n : {60, 5, 23}) {
    const auto tokens = Tokens(n, static_cast<uint64_t>(n));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  const auto prefix = Tokens(17, 7);
  batch.AppendPrefix(prefix);
  for (const int own : {3, 40, 1}) {
    auto tokens = prefix;
    const auto more = Tokens(own, static_cast<uint64_t>(100 + own));
    tokens.insert(tokens.end(), more.begin(), more.end());
    std::vector<uint8_t> mask(tokens.size(), 0);
    for (size_t i = prefix.size() + 1; i < tokens.size(); ++i) mask[i] = 1;
    batch.Append(tokens, mask, static_cast<int32_t>(prefix.size()));
  }
  return batch;
}

// Rounded through `dtype`; gates high and low.
std::vector<float> Values(const ModelShape& shape, DType dtype) {
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  RandomStream random(4, 4);
  for (const TensorEntry& e : weights.table().entries()) {
    const bool drawn = e.name.find("norm") != std::string::npos || e.name.ends_with("sinks"),
               gate = e.name.ends_with("token_gate");
    for (int64_t i = 0; (drawn || gate) && i < e.elements; ++i) {
      float& w = weights.flat().f32()[e.offset + i];
      w = gate ? 3 * w : w + 0.3f * random.NextNormal();
    }
  }
  std::vector<float> out(weights.flat().f32(), weights.flat().f32() + weights.flat().elements());
  if (dtype == DType::kBFloat16) {
    for (float& x : out) x = ToFloat(ToBFloat16(x));
  }
  return out;
}

struct Numbers {
  std::vector<float> logprob, grad;
};

Numbers RunModel(const ModelShape& shape, Device device, DType dtype, std::span<const float> values,
                 bool recompute = false) {
  const OwnedStream stream(device);
  Weights weights(shape, stream, dtype);
  std::vector<std::byte> bytes(weights.flat().bytes());
  ConvertFloat(values, dtype, bytes.data());
  weights.flat().CopyFromHost(bytes);
  Transformer model(shape, stream, dtype);
  model.RecomputeLayers(recompute);
  const PackedBatch batch = Batch();
  Numbers out;
  out.logprob.resize(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, true, out.logprob, {});
  std::vector<float> g;
  RandomStream random(5, 5);
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g, {}, grad);
  out.grad.resize(static_cast<size_t>(grad.elements()));
  grad.CopyToHost(std::as_writable_bytes(std::span<float>(out.grad)));
  return out;
}

double Norm(std::span<const float> a, std::span<const float> b = {}) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double less = b.empty() ? 0 : static_cast<double>(b[i]);
    sum += std::pow(static_cast<double>(a[i]) - less, 2);
  }
  return std::sqrt(sum);
}

void ExpectFloatAlike(const ModelShape& shape) {
  constexpr double kError = 1e-4;
  const std::vector<float> values = Values(shape, DType::kFloat32);
  const Numbers cpu = RunModel(shape, Device::kCpu, DType::kFloat32, values);
  for (const bool recompute : {false, true}) {
    const Numbers cuda = RunModel(shape, Device::Cuda(0), DType::kFloat32, values, recompute);
    EXPECT_LT(Norm(cuda.logprob, cpu.logprob), kError * Norm(cpu.logprob));
    const TensorTable table(shape);
    for (const TensorEntry& e : table.entries()) {
      const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
      const auto a = std::span(cuda.grad).subspan(at, n), b = std::span(cpu.grad).subspan(at, n);
      EXPECT_LT(Norm(a, b), kError * Norm(b) + 1e-6 * Norm(cpu.grad)) << e.name;
    }
  }
}

void ExpectBfloat16AsNear(const ModelShape& shape) {
  const std::vector<float> values = Values(shape, DType::kBFloat16);
  const Numbers exact = RunModel(shape, Device::kCpu, DType::kFloat32, values),
                cpu = RunModel(shape, Device::kCpu, DType::kBFloat16, values),
                cuda = RunModel(shape, Device::Cuda(0), DType::kBFloat16, values);
  EXPECT_LE(Norm(cuda.logprob, exact.logprob),
            2 * Norm(cpu.logprob, exact.logprob) + 0.004 * Norm(exact.logprob));
  EXPECT_LE(Norm(cuda.grad, exact.grad), 2 * Norm(cpu.grad, exact.grad) + 0.004 * Norm(exact.grad));
}

TEST_F(BeyondWindowCudaTest, SinglePositionsAreTheCpus) {
  for (const ModelShape& shape : {Single(), Latent()}) {
    SCOPED_TRACE(shape.latent.there() ? "latent" : "with sinks");
    ExpectFloatAlike(shape);
    ExpectBfloat16AsNear(shape);
  }
}

TEST_F(BeyondWindowCudaTest, GatesAreTheCpus) { ExpectFloatAlike(Scaled(3, false)); }

TEST_F(BeyondWindowCudaTest, TablesAreTheCpus) {
  ExpectFloatAlike(Scaled(0, true));
  ExpectBfloat16AsNear(Scaled(0, true));
  ExpectFloatAlike(Scaled(3, true));
}

TEST_F(BeyondWindowCudaTest, ATableIsThereOnceADeviceForAsLongAsSomebodyHasIt) {
  const OwnedStream stream(Device::Cuda(0));
  const auto table = KeyTableOf(Scaled(0, true));
  auto first = KeyTableOn(table, stream);
  EXPECT_EQ(KeyTableOn(table, stream), first);
  std::vector<float> there(2 * table->keys.size());
  first->CopyToHost(std::as_writable_bytes(std::span<float>(there)));
  std::vector<float> want = table->keys;
  want.insert(want.end(), table->values.begin(), table->values.end());
  EXPECT_EQ(there, want);
  const std::weak_ptr<const FlatBuffer> gone = first;
  first.reset();
  EXPECT_TRUE(gone.expired());
}

}  // namespace
}  // namespace plumb::policy_model
