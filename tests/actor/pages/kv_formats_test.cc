// Engine with keys and values in fewer bits (EngineOptions::kv_format).
#include <gtest/gtest.h>

#include <cstdio>

#include "actor/engine.h"
#include "actor/pages/kv_pages.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using policy_model::Weights;

// Pages in fewer bits: what they take, how far the log-probs move, and that answers still do not
// depend on the batch nor on prompt chunks.
TEST(KvFormats, TakeLessAndAnswersDoNotDependOnTheBatch) {
  policy_model::ModelShape shape = TinyShape();
  shape.hidden = 128, shape.heads = 2, shape.kv_heads = 1, shape.head_dim = 64;
  const Weights weights = DrawWeights(shape, DType::kBFloat16);
  EngineOptions options = TinyOptions();
  const Answers whole = AnswersOf(weights, options);
  const double own = Distance(weights, whole, false);
  const int64_t page = KvPages::PageBytes(weights.shape(), DType::kBFloat16, options.page_tokens);
  for (const auto& [name, format, most] : {std::tuple{"int8", kernels::KvFormat::kInt8, 0.53},
                                           std::tuple{"fp8", kernels::KvFormat::kFp8, 0.53},
                                           std::tuple{"int4", kernels::KvFormat::kInt4, 0.42}}) {
    options.kv_format = format;
    const Answers answers = AnswersOf(weights, options);
    const double share = static_cast<double>(KvPages::PageBytes(weights.shape(), DType::kBFloat16,
                                                                options.page_tokens, format)) /
                         static_cast<double>(page);
    EXPECT_LE(share, most) << name;
    const double distance = Distance(weights, answers, false);
    std::printf("%s: pages of %.1f%%, mean |learner - actor| %.5f nats (bfloat16 pages %.5f)\n",
                name, 100 * share, distance, own);
    EXPECT_GT(distance, own) << name;
    EXPECT_LT(distance, 1) << name;
    EXPECT_LT(static_cast<double>(answers.most_kv_bytes),
              0.7 * static_cast<double>(whole.most_kv_bytes))
        << name;
    const int64_t budget = options.kv_budget_mb;
    EXPECT_LE(Engine::KvBytes(weights.shape(), Device::kCpu, DType::kBFloat16, options),
              budget << 20);
  }
  // In float32 the products' rows are independent: bit for bit.
  const Weights exact = DrawWeights(shape, DType::kFloat32);
  EngineOptions alone = options, chunks = options;
  alone.max_batch = 1;
  chunks.prefill_tokens = 3;
  const Answers a = AnswersOf(exact, options), b = AnswersOf(exact, alone),
                c = AnswersOf(exact, chunks);
  for (const auto& [key, s] : a.samples) {
    for (const Answers* other : {&b, &c}) {
      EXPECT_EQ(s.tokens, other->samples.at(key).tokens);
      EXPECT_EQ(s.logprobs, other->samples.at(key).logprobs);
    }
  }
}

TEST(KvFormats, ABudgetHoldsMorePages) {
  policy_model::ModelShape shape = TinyShape();
  shape.head_dim = 64;
  EngineOptions options = TinyOptions();
  options.kv_budget_mb = 1;
  options.max_batch = 256;
  const auto pages = [&](kernels::KvFormat format) {
    options.kv_format = format;
    return Engine(shape, Device::kCpu, DType::kBFloat16, options).num_pages();
  };
  const auto whole = static_cast<double>(pages(kernels::KvFormat::kModel));
  EXPECT_GT(pages(kernels::KvFormat::kInt8), 1.9 * whole);
  EXPECT_GT(pages(kernels::KvFormat::kInt4), 3.4 * whole);
}

}  // namespace
}  // namespace plumb::actor
