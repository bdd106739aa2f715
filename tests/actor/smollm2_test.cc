// Real weights: SmolLM2-135M-Instruct through policy_model/transformer.h and actor/engine.h against
// transformers' float32 numbers (tests/golden/make_smollm2_logits_golden.py). Needs `make model`.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "actor/engine.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/transformer.h"

namespace plumb::actor {
namespace {

constexpr char kFolder[] = PLUMB_SOURCE_DIR "/models/SmolLM2-135M-Instruct";

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(std::string(kFolder) + "/config.json")) {
      GTEST_SKIP()
          << "NO MODEL: run `make model`; the real weights were not compared with transformers";
    }
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/smollm2_logits.json");
    ASSERT_TRUE(file.good());
    golden_ = nlohmann::json::parse(file);
    policy_model::SetThreads(0);
    if (weights_) return;  // loaded once for all tests
    weights_ = std::make_unique<policy_model::Weights>(policy_model::ReadModelConfig(kFolder),
                                                       Device::kCpu, DType::kFloat32);
    weights_->Load(kFolder);
  }
  void TearDown() override { policy_model::SetThreads(1); }
  static void TearDownTestSuite() { weights_.reset(); }

  nlohmann::json golden_;
  inline static std::unique_ptr<policy_model::Weights> weights_;
};

TEST_F(SmolLm2, LogitsEqualTransformersOver512Positions) {
  const auto ids = golden_["ids"].get<std::vector<int32_t>>();
  const auto columns = golden_["columns"].get<std::vector<size_t>>();
  const auto top = golden_["top"].get<std::vector<size_t>>();
  ASSERT_EQ(ids.size(), 512u);
  policy_model::PackedBatch batch;
  batch.Clear();
  std::vector<int32_t> all(ids.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
  batch.AppendRows(ids, all);
  const auto vocab = static_cast<size_t>(weights_->shape().vocab);
  std::vector<float> logits(ids.size() * vocab);
  policy_model::Transformer transformer(weights_->shape(), Device::kCpu, DType::kFloat32);
  transformer.Logits(*weights_, batch, logits);
  double worst = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const float* row = logits.data() + i * vocab;
    for (size_t c = 0; c < columns.size(); ++c) {
      worst = std::max(worst,
                       std::abs(double{row[columns[c]]} - golden_["logits"][i][c].get<double>()));
    }
    worst = std::max(worst, std::abs(double{row[top[i]]} - golden_["top_logit"][i].get<double>()));
    double sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(double{row[v]} - double{row[top[i]]});
    worst = std::max(worst, std::abs(std::log(sum) + double{row[top[i]]} -
                                     golden_["logsumexp"][i].get<double>()));
  }
  EXPECT_LE(worst, 1e-3);
  std::cout << "largest difference " << worst << "\n";
}

TEST_F(SmolLm2, GreedyAnswerEqualsTransformers) {
  EngineOptions options;
  options.max_batch = 2;
  options.max_new_tokens = 32;
  options.kv_budget_mb = 256;
  options.sampling.temperature = 0;
  options.eos = weights_->shape().eos_tokens;
  Engine engine(weights_->shape(), Device::kCpu, DType::kFloat32, options);
  engine.Submit(
      {.id = 1, .tokens = golden_["prompt"].get<std::vector<int32_t>>(), .num_samples = 1});
  while (engine.Step(*weights_, 0)) {
  }
  const auto results = engine.TakeFinished();
  ASSERT_EQ(results.size(), 1u);
  const auto& tokens = results[0].samples.at(0).tokens;
  EXPECT_EQ(tokens, golden_["answer"].get<std::vector<int32_t>>());
  const auto tokenizer = Tokenizer::Load(kFolder);
  EXPECT_EQ(tokenizer->Decode(tokens, false), golden_["answer_text"].get<std::string>());
}

}  // namespace
}  // namespace plumb::actor
