// actor/engine.h on CUDA: greedy answers equal the CPU's, and a sampled token's log-prob is the one
// the packed pass gives.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "actor/engine.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

std::map<std::pair<uint64_t, uint32_t>, GeneratedSample> Generate(
    const EngineOptions& options, const policy_model::Weights& weights) {
  Engine engine(weights.shape(), weights.flat().stream(), weights.flat().dtype(), options);
  std::map<std::pair<uint64_t, uint32_t>, GeneratedSample> out;
  for (const GenerateRequest& r : MixedRequests(12)) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) out.emplace(std::make_pair(r.id, s.sample), std::move(s));
  }
  return out;
}

TEST(EngineCuda, AnswersEqualTheCpu) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: generation was not run on CUDA";
  const policy_model::Weights cpu = TinyWeights();
  const OwnedStream stream(Device::Cuda(0));
  policy_model::Weights cuda(cpu.shape(), stream, DType::kFloat32);
  std::vector<std::byte> bytes(cpu.flat().bytes());
  cpu.flat().CopyToHost(bytes);
  cuda.flat().CopyFromHost(bytes);
  for (const float temperature : {0.0f, 1.0f}) {
    EngineOptions options = TinyOptions();
    options.max_batch = 7;
    options.sampling.temperature = temperature;
    const auto a = Generate(options, cpu), b = Generate(options, cuda);
    ASSERT_EQ(a.size(), b.size());
    int equal = 0, compared = 0;
    for (const auto& [key, x] : a) {
      const GeneratedSample& y = b.at(key);
      equal += x.tokens == y.tokens;
      for (size_t i = 0;
           i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i];
           ++i, ++compared) {
        ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 1e-4)
            << key.first << " " << key.second << " " << i;
      }
    }
    // The same random addresses draw the same tokens; a draw within a rounding of a boundary may
    // fall on its other side.
    EXPECT_GE(equal, static_cast<int>(a.size()) * 9 / 10);
    EXPECT_GT(compared, 100);
  }
}

}  // namespace
}  // namespace plumb::actor
