// Generation of models with latent attention, alone and with windows: pages of one vector a token.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "actor/pages/kv_pages.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape LatentShape(int64_t window) {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.layers = 3;
  s.kv_heads = s.heads;
  s.latent = {.kv_rank = 24, .query_rank = 20, .nope = 16, .rope = 8, .value = 16};
  s.head_dim = s.latent.head();
  s.window = window;
  return s;
}

policy_model::Weights Draw(const policy_model::ModelShape& shape) {
  policy_model::SetThreads(1);
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.15);
  return weights;
}

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;

Samples Generate(const EngineOptions& options, const policy_model::Weights& weights,
                 const std::vector<GenerateRequest>& requests) {
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  for (const GenerateRequest& r : requests) engine.Submit(r);
  Samples out;
  while (!engine.idle()) {
    engine.Step(weights, 0);
    for (GenerateResult& r : engine.TakeFinished()) {
      for (GeneratedSample& s : r.samples) out.emplace(std::make_pair(r.id, s.sample), s);
    }
  }
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  return out;
}

// Bits of an answer do not change with the batch, the cut of prompts and who shares a prompt; its
// log-probs are those of the packed pass, the plain form.
TEST(LatentEngine, AnswersAreThoseOfAnyBatchAndTheirLogProbsThoseOfTraining) {
  for (const int64_t window : {0, 12}) {
    const policy_model::Weights weights = Draw(LatentShape(window));
    const std::vector<GenerateRequest> requests = MixedRequests(10);
    EngineOptions options = TinyOptions();
    options.max_batch = 32;
    const Samples together = Generate(options, weights, requests);
    options.max_batch = 2;
    options.prefill_tokens = 7;
    const Samples few = Generate(options, weights, requests);
    ASSERT_EQ(together.size(), few.size());
    policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    for (const auto& [key, sample] : together) {
      const GeneratedSample& other = few.at(key);
      ASSERT_EQ(sample.tokens, other.tokens) << key.first;
      ASSERT_EQ(0, std::memcmp(sample.logprobs.data(), other.logprobs.data(),
                               4 * sample.logprobs.size()));
      std::vector<int32_t> all = requests[key.first].tokens;
      std::vector<uint8_t> mask(all.size(), 0);
      all.insert(all.end(), sample.tokens.begin(), sample.tokens.end());
      mask.resize(all.size(), 1);
      policy_model::PackedBatch batch;
      batch.Clear();
      batch.Append(all, mask);
      std::vector<float> logprob(batch.rows.size());
      model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
      ASSERT_EQ(logprob.size(), sample.logprobs.size());
      for (size_t i = 0; i < logprob.size(); ++i)
        ASSERT_NEAR(logprob[i], sample.logprobs[i], 5e-5) << key.first << " token " << i;
    }
  }
}

TEST(LatentEngine, ATokenTakesTheVectorAndTheRotatedKeyAlone) {
  const policy_model::ModelShape tiny = LatentShape(0);
  EXPECT_EQ(KvPages::PageBytes(tiny, DType::kFloat32, 8), 3 * 8 * (24 + 8) * 4);
  const KvPages pages(tiny, Device::kCpu, DType::kFloat32, 8, 5);
  EXPECT_EQ(pages.view().bytes(), 5 * KvPages::PageBytes(tiny, DType::kFloat32, 8));
  // Of DeepSeek R1, whose heads would hold 128 (192 + 128) numbers.
  policy_model::ModelShape r1 = tiny;
  r1.layers = 61;
  r1.heads = r1.kv_heads = 128;
  r1.latent = {.kv_rank = 512, .query_rank = 1536, .nope = 128, .rope = 64, .value = 128};
  r1.head_dim = r1.latent.head();
  const int64_t latent = KvPages::PageBytes(r1, DType::kBFloat16, 1),
                full = int64_t{61} * 128 * (192 + 128) * 2;
  std::printf(
      "DeepSeek R1 in bfloat16: %lld bytes a token, %lld with keys and values of all heads\n",
      static_cast<long long>(latent), static_cast<long long>(full));
  EXPECT_EQ(latent, 61 * 576 * 2);
  EXPECT_GT(full, 71 * latent);
}

}  // namespace
}  // namespace plumb::actor
