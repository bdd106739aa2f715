// Engine: the experts that answers went through (EngineOptions::record_experts), and what sending
// tokens to them again does to the distance between actor and learner.
#include <gtest/gtest.h>

#include <cstdio>

#include "actor/engine.h"
#include "policy_model/families/experts/expert_form.h"
#include "policy_model/transformer.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using policy_model::PackedBatch;
using policy_model::Transformer;
using policy_model::Weights;

policy_model::ModelShape MoeShape() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.layers = 3;
  s.experts = {.count = 16, .widths = {48}, .per_token = 2, .dense = {1, 0, 0}};
  return s;
}

TEST(ExpertReplay, WhatIsRecordedIsWhatTheForwardChooses) {
  const Weights weights = DrawWeights(MoeShape(), DType::kFloat32);
  EngineOptions options = TinyOptions();
  options.prefill_tokens = 7;  // prompts in chunks
  for (const auto& [key, s] : AnswersOf(weights, options, 2).samples)
    EXPECT_FALSE(s.experts.there()) << "nobody asked";
  options.record_experts = true;
  const Answers answers = AnswersOf(weights, options);
  const ExpertForm form = policy_model::ExpertFormOf(weights.shape());
  EXPECT_EQ(form, (ExpertForm{2, 2, 16}));
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  size_t tokens_seen = 0;
  for (const auto& [key, s] : answers.samples) {
    std::vector<int32_t> tokens = answers.requests[key.first].tokens;
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    ASSERT_EQ(s.experts.form, form);
    ASSERT_EQ(s.experts.tokens() + 1, tokens.size());
    CheckExperts(form, s.experts.bytes);
    PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    std::vector<float> logprob(batch.rows.size());
    model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
    std::vector<int32_t> taken(form.numbers());
    for (size_t t = 0; t + 1 < tokens.size(); ++t, ++tokens_seen) {
      UnpackExperts(form, s.experts.of(t), taken);
      const auto want = model.experts().subspan(t * form.numbers(), form.numbers());
      ASSERT_TRUE(std::equal(taken.begin(), taken.end(), want.begin())) << "token " << t;
    }
  }
  EXPECT_GT(tokens_seen, 500u);
}

TEST(ExpertReplay, BringsTheLearnerNearerInBfloat16) {
  policy_model::ModelShape shape = MoeShape();  // deep enough that choices come apart
  shape.layers = 8;
  shape.experts = {.count = 32, .widths = {48}, .per_token = 4};
  const Weights weights = DrawWeights(shape, DType::kBFloat16, 0.3);
  EngineOptions options = TinyOptions();
  options.record_experts = true;
  const Answers answers = AnswersOf(weights, options, 40);
  const double off = Distance(weights, answers, false), on = Distance(weights, answers, true);
  const double bytes = static_cast<double>(answers.samples.begin()->second.experts.form.bytes());
  std::printf(
      "mean |learner - actor|: routers choose %.5f, experts replayed %.5f nats; %g bytes "
      "a token\n",
      off, on, bytes);
  EXPECT_LT(on, 0.8 * off);
  EXPECT_GT(on, 0);
}

TEST(ExpertReplay, ADenseModelIsRefusedByName) {
  EngineOptions options = TinyOptions();
  options.record_experts = true;
  try {
    Engine::KvBytes(TinyShape(), Device::kCpu, DType::kFloat32, options);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("rollout.replay_experts"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("no experts"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::actor
