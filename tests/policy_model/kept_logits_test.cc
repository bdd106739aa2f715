#include "policy_model/kept_logits.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "common/base/rng.h"
#include "policy_model/head_pass.h"
#include "policy_model/pass_memory.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kHidden = 8;

// More rows than a chunk of logits has.
struct Case {
  Device device;
  DType dtype;
  int64_t vocab;
  int64_t rows;
};

std::vector<float> ToHost(const FlatBuffer& of) {
  std::vector<std::byte> bytes(of.bytes());
  of.CopyToHost(bytes);
  std::vector<float> out(static_cast<size_t>(of.elements()));
  ConvertToFloat(bytes.data(), of.dtype(), out);
  return out;
}

void Fill(FlatBuffer& to, uint64_t seed, float scale = 1) {
  RandomStream random(seed, 1);
  std::vector<float> values(static_cast<size_t>(to.elements()));
  for (float& x : values) x = scale * random.NextNormal();
  std::vector<std::byte> bytes(to.bytes());
  ConvertFloat(values, to.dtype(), bytes.data());
  to.CopyFromHost(bytes);
}

class KeptLogitsTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().device.is_cuda() && !kernels::CudaAvailable())
      GTEST_SKIP() << "NO GPU: a head that keeps its logits was not run on CUDA";
  }
};

struct Results {
  std::vector<float> logprob, entropy, dhead, dw;
};

// `other_head`: the backward finds another matrix than the forward, which a head that computes its
// logits again sees.
Results RunHead(const Case& of, bool keep, bool other_head) {
  const OwnedStream stream(of.device);
  ModelShape shape{.family = "llama", .hidden = kHidden, .vocab = of.vocab, .max_positions = 4096};
  shape.unused_tokens = {3};
  const kernels::Launch launch{.stream = stream, .dtype = of.dtype};
  HeadPass head(shape, launch);
  PackedBatch batch;
  batch.Clear();
  std::vector<int32_t> tokens(static_cast<size_t>(of.rows + 1));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(4 + i * 37 % static_cast<size_t>(of.vocab - 4));
  batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  const auto rows = static_cast<int64_t>(batch.rows.size());
  EXPECT_EQ(rows, of.rows);
  const int64_t chunk = PassMemory::HeadRows(launch, shape, rows);
  EXPECT_LT(chunk, rows) << "one chunk alone";
  const auto floats = [&](int64_t n) { return FlatBuffer(stream, DType::kFloat32, n); };
  FlatBuffer targets(stream, DType::kInt32, rows), normed(stream, of.dtype, rows * kHidden),
      w(stream, of.dtype, of.vocab * kHidden), dhead(stream, of.dtype, rows * kHidden),
      dlogits(stream, of.dtype, chunk * of.vocab),
      logprob = floats(rows), entropy = floats(rows), lse = floats(rows), g_logprob = floats(rows),
      g_entropy = floats(rows), scratch = floats(chunk * of.vocab), dw = floats(of.vocab * kHidden),
      kept = floats(keep ? rows * of.vocab : 1);
  targets.CopyFromHost(std::as_bytes(std::span<const int32_t>(batch.targets)));
  Fill(normed, 1);
  Fill(w, 2, 0.5f);
  Fill(g_logprob, 3);
  Fill(g_entropy, 4, 0.1f);
  const HeadPass::Rows pass{.batch = batch,
                            .targets = static_cast<const int32_t*>(targets.data()),
                            .normed = static_cast<const std::byte*>(normed.data()),
                            .w = w.data(),
                            .temperature = 0.8f,
                            .logprob = logprob.f32(),
                            .entropy = entropy.f32(),
                            .lse = lse.f32(),
                            .kept = keep ? kept.f32() : nullptr};
  head.Forward(pass, scratch.f32());
  if (other_head) Fill(w, 5, 0.5f);
  head.Backward(pass, {.g_logprob = g_logprob.f32(),
                       .g_entropy = g_entropy.f32(),
                       .logits = scratch.f32(),
                       .dlogits = dlogits.data(),
                       .dhead = static_cast<std::byte*>(dhead.data()),
                       .dw = dw.f32()});
  stream.Synchronize();
  return {ToHost(logprob), ToHost(entropy), ToHost(dhead), ToHost(dw)};
}

size_t Differing(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  size_t n = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    n += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
  return n;
}

TEST_P(KeptLogitsTest, AreTheSameBitsAsComputedAgain) {
  const Results again = RunHead(GetParam(), false, false), kept = RunHead(GetParam(), true, false);
  EXPECT_EQ(Differing(kept.logprob, again.logprob), 0u);
  EXPECT_EQ(Differing(kept.entropy, again.entropy), 0u);
  EXPECT_EQ(Differing(kept.dhead, again.dhead), 0u);
  EXPECT_EQ(Differing(kept.dw, again.dw), 0u);
}

TEST_P(KeptLogitsTest, TheBackwardReadsThem) {
  const Results kept = RunHead(GetParam(), true, false), changed = RunHead(GetParam(), true, true),
                again = RunHead(GetParam(), false, true);
  EXPECT_EQ(Differing(changed.dw, kept.dw), 0u) << "of the forward's logits";
  EXPECT_GT(Differing(again.dw, kept.dw), 0u) << "a head that computes them again sees its matrix";
}

INSTANTIATE_TEST_SUITE_P(Devices, KeptLogitsTest,
                         ::testing::Values(Case{Device::kCpu, DType::kFloat32, 4000, 2200},
                                           Case{Device::Cuda(0), DType::kFloat32, 150'016, 1800},
                                           Case{Device::Cuda(0), DType::kBFloat16, 150'016, 1800}),
                         [](const auto& info) {
                           return std::string(info.param.device.is_cpu() ? "Cpu" : "Cuda") +
                                  (info.param.dtype == DType::kFloat32 ? "Float" : "Bf16");
                         });

TEST(KeptLogitsRoomTest, TheCpuKeepsNone) {
  KeptLogits logits(Device::kCpu);
  EXPECT_EQ(logits.Room(1, 1), nullptr);
  EXPECT_EQ(logits.bytes(), 0);
}

TEST(KeptLogitsRoomTest, TakesAQuarterOfWhatIsFree) {
  EXPECT_TRUE(KeptLogits::Fits(25, 100));
  EXPECT_FALSE(KeptLogits::Fits(26, 100));
  EXPECT_FALSE(KeptLogits::Fits(1, 0)) << "a card that does not answer";
}

TEST(KeptLogitsRoomTest, OnAGpuWhatFitsStaysWhereItIs) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: no memory to take";
  const OwnedStream stream(Device::Cuda(0));
  KeptLogits logits(stream);
  float* const first = logits.Room(100, 1000);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(logits.Room(50, 1000), first);
  EXPECT_EQ(logits.Room(int64_t{1} << 30, int64_t{1} << 20), nullptr) << "more than any card has";
  EXPECT_EQ(logits.Room(100, 1000), first);
  EXPECT_NE(logits.Room(200, 1000), nullptr);
}

}  // namespace
}  // namespace plumb::policy_model
