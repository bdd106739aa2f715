#include "policy_model/layers/beside.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/rng.h"
#include "kernels/device/device_memory.h"
#include "policy_model/memory/flat_buffer.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

TEST(BesideTest, OnTheCpuNothingIsWaitedFor) {
  Beside beside(Device::kCpu);
  const Stream own = beside.Begin();
  EXPECT_TRUE(own.device().is_cpu());
  int dy = 0;
  beside.End(&dy);
  beside.Release(&dy);
  beside.Join();
}

// Copies beside a pass that writes over what they read as soon as it may.
TEST(BesideTest, WhatItReadsIsWrittenBehindIt) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: there are no streams to order";
  constexpr int64_t kFloats = int64_t{1} << 24;
  constexpr int kCopies = 6;  // more than are told apart
  const OwnedStream stream(Device::Cuda(0));
  const std::vector<float> ones(kFloats, 1.0f);
  std::vector<FlatBuffer> from, to;
  for (int i = 0; i < kCopies; ++i) {
    from.emplace_back(stream, DType::kFloat32, kFloats);
    to.emplace_back(stream, DType::kFloat32, kFloats);
  }
  Beside beside(stream);
  for (const bool one_by_one : {true, false}) {
    for (auto& buffer : from) buffer.CopyFromHost(std::as_bytes(std::span<const float>(ones)));
    for (auto& buffer : to) buffer.Zero();
    for (size_t i = 0; i < kCopies; ++i) {
      const Stream own = beside.Begin();
      kernels::Copy(own, to[i].data(), from[i].data(), from[i].bytes());
      beside.End(from[i].data());
    }
    if (!one_by_one) beside.Join();
    for (size_t i = 0; i < kCopies; ++i) {
      if (one_by_one) beside.Release(from[i].data());
      from[i].Zero();
    }
    beside.Join();
    for (auto& buffer : to) {
      std::vector<float> seen(kFloats);
      buffer.CopyToHost(std::as_writable_bytes(std::span<float>(seen)));
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1.0f), kFloats) << one_by_one;
    }
  }
}

// A model large enough that products beside the pass take a while: its gradients are those of a
// pass that does one after the other. Attention and embeddings add in any order on a GPU, so that
// bits differ from run to run.
TEST(BesideTest, GradientsAreThoseOfOneStream) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: gradients beside a pass were not computed";
  const ModelShape shape{.family = "qwen2",
                         .layers = 4,
                         .hidden = 512,
                         .heads = 8,
                         .kv_heads = 2,
                         .head_dim = 64,
                         .ffn = 1536,
                         .vocab = 1024,
                         .max_positions = 1024,
                         .attention_bias = true,
                         .eos_tokens = {2}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const OwnedStream stream(Device::Cuda(0));
    Weights weights(shape, stream, dtype);
    weights.Initialise(4, 0.05);
    PackedBatch batch;
    batch.Clear();
    RandomStream random(3, 1);
    for (int s = 0; s < 4; ++s) {
      std::vector<int32_t> tokens(700);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random.NextBelow(1024));
      batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    }
    const size_t rows = batch.rows.size();
    std::vector<float> logprob(rows), entropy(rows), g(rows);
    for (float& x : g) x = random.NextNormal() / static_cast<float>(rows);
    for (const bool recompute : {false, true}) {
      const auto run = [&](bool beside) {
        Transformer model(shape, stream, dtype);
        model.WorkBeside(beside);
        model.RecomputeLayers(recompute);
        FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
        for (int pass = 0; pass < 3; ++pass) {  // adds up
          model.Forward(weights, batch, {}, true, logprob, entropy);
          model.Backward(weights, batch, g, {}, grad);
        }
        std::vector<float> out(static_cast<size_t>(grad.elements()));
        grad.CopyToHost(std::as_writable_bytes(std::span<float>(out)));
        return out;
      };
      const std::vector<float> together = run(true), alone = run(false);
      const double most = dtype == DType::kFloat32 ? 1e-4 : 1e-2;
      for (const TensorEntry& e : weights.table().entries()) {
        double difference = 0, norm = 0;
        for (auto i = static_cast<size_t>(e.offset); i < static_cast<size_t>(e.offset + e.elements);
             ++i) {
          const double a = double{together[i]}, b = double{alone[i]};
          difference += (a - b) * (a - b);
          norm += b * b;
        }
        EXPECT_LE(std::sqrt(difference), most * std::sqrt(norm)) << e.name << " " << recompute;
      }
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
