// reward/models/perplexity.h: the formula at its ends and in its middle, values from the model's
// own log-probs, refusals that say why.
#include "reward/models/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/file.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"
#include "reward/models/model_part.h"
#include "reward/models/reward_model.h"
#include "reward/scorer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using plumb::Tokenizer;
using policy_model::Weights;

TEST(PerplexityFormula, LowMiddleHigh) {
  EXPECT_EQ(PerplexityScore(std::log(1000.0), 10, 1000), 0);
  EXPECT_EQ(PerplexityScore(std::log(5000.0), 10, 1000), 0);
  EXPECT_NEAR(PerplexityScore(std::log(100.0), 10, 1000), 0.5, 1e-12);
  EXPECT_NEAR(PerplexityScore(std::log(31.6227766), 10, 1000), 0.75, 1e-8);
  EXPECT_EQ(PerplexityScore(std::log(10.0), 10, 1000), 1);
  EXPECT_EQ(PerplexityScore(0, 10, 1000), 1);
}

class PerplexityTest : public ::testing::Test {
 protected:
  PerplexityTest() : tokenizer_(Tokenizer::BuiltIn("arithmetic")) {
    weights_ = std::make_unique<Weights>(policy_model::ModelShape{.family = "llama",
                                                                  .layers = 2,
                                                                  .hidden = 32,
                                                                  .heads = 4,
                                                                  .kv_heads = 2,
                                                                  .head_dim = 8,
                                                                  .ffn = 48,
                                                                  .vocab = tokenizer_->size(),
                                                                  .max_positions = 48,
                                                                  .tied = true,
                                                                  .eos_tokens = {2}},
                                         Device::kCpu, DType::kFloat32);
    weights_->Initialise(6, 0.3);
    Save(*weights_, "lm");
  }

  void Save(const Weights& weights, const std::string& name) const {
    policy_model::SaveModelDirectory(weights, Path(name), "");
    RealFileSystem().WriteFileAtomic(Path(name) + "/tokenizer.json", tokenizer_->json());
  }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  std::unique_ptr<RewardFunction> Make(std::vector<std::string> args,
                                       const std::string& folder = "lm") const {
    configs::RewardPartConfig part;
    part.name = "base", part.kind = "perplexity", part.path = Path(folder),
    part.args = std::move(args);
    return MakePerplexity(part, *tokenizer_);
  }

  TrajectoryGroup Group(const std::vector<std::string>& answers) const {
    TrajectoryGroup group;
    for (const std::string& answer : answers) {
      Trajectory t;
      t.tokens = tokenizer_->Encode("<bos>12+34=" + answer);
      t.segments = {{Origin::kPrompt, 0, 7},
                    {Origin::kPolicy, 7, static_cast<int32_t>(t.tokens.size())}};
      group.trajectories.push_back(t);
    }
    return group;
  }

  // From full logits, one sequence a pass: another way than the part's.
  double Nll(const Trajectory& t) const {
    policy_model::Transformer transformer(weights_->shape(), Device::kCpu, DType::kFloat32);
    policy_model::PackedBatch batch;
    batch.Clear();
    std::vector<int32_t> all(t.tokens.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
    batch.AppendRows(t.tokens, all);
    const size_t vocab = static_cast<size_t>(weights_->shape().vocab);
    std::vector<float> logits(all.size() * vocab);
    transformer.Logits(*weights_, batch, logits);
    double nll = 0;
    const size_t from = static_cast<size_t>(t.prompt_length());
    for (size_t i = from; i < t.tokens.size(); ++i) {
      const float* row = logits.data() + (i - 1) * vocab;
      double sum = 0;
      for (size_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
      nll += std::log(sum) - row[t.tokens[i]];
    }
    return nll / static_cast<double>(t.tokens.size() - from);
  }

  testing::TempFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Weights> weights_;
};

TEST_F(PerplexityTest, LowMiddleAndHighUnderATinyModel) {
  const TrajectoryGroup group = Group({"46<eos>"});
  const double ppl = std::exp(Nll(group.trajectories[0]));
  ASSERT_GT(ppl, 2.5);
  const auto value = [&](double low, double high) {
    const auto scores = Make({"low=" + std::to_string(low), "high=" + std::to_string(high)})
                            ->Score(group, After(std::chrono::seconds(60)));
    EXPECT_TRUE(scores[0].scored()) << scores[0].reason;
    EXPECT_NEAR(scores[0].details.at(0).second, ppl, 1e-3 * ppl);
    return scores[0].value;
  };
  EXPECT_EQ(value(1.01, ppl / 1.5), 0);
  EXPECT_NEAR(value(ppl / 2, ppl * 2), 0.5, 1e-4);
  EXPECT_EQ(value(ppl * 1.5, ppl * 4), 1);
}

TEST_F(PerplexityTest, EachAnswerByItselfWhateverIsPackedTogether) {
  const TrajectoryGroup group =
      Group({"46<eos>", "<think>6+4=10</think><answer>46</answer><eos>", "9999", "+<eos>"});
  for (const char* budget : {"batch_tokens=8192", "batch_tokens=12"}) {
    const auto scores =
        Make({"low=1.5", "high=5000", budget})->Score(group, After(std::chrono::seconds(60)));
    for (size_t i = 0; i < scores.size(); ++i) {
      ASSERT_TRUE(scores[i].scored()) << scores[i].reason;
      EXPECT_NEAR(scores[i].value, PerplexityScore(Nll(group.trajectories[i]), 1.5, 5000), 1e-5)
          << i << budget;
    }
  }
}

TEST_F(PerplexityTest, WhatHasNoPerplexityFailsAlone) {
  TrajectoryGroup group = Group({"46", ""});
  group.trajectories.push_back(Trajectory());
  const auto scores = Make({})->Score(group, After(std::chrono::seconds(60)));
  EXPECT_TRUE(scores[0].scored());
  EXPECT_NE(scores[1].reason.find("no token to score"), std::string::npos) << scores[1].reason;
  EXPECT_EQ(scores[2].failure, Failure::kReported);
  for (const PartScore& score : Make({})->Score(group, After(std::chrono::seconds(-1))))
    EXPECT_FALSE(score.scored());
}

TEST_F(PerplexityTest, IsAPartOfAReward) {
  configs::RewardConfig config;
  configs::RewardPartConfig part;
  part.name = "base", part.kind = "perplexity", part.path = Path("lm"), part.weight = 0.7;
  config.parts = {part};
  GroupScorer scorer(config, WithModelParts(*tokenizer_));
  TrajectoryGroup group = Group({"46<eos>"});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored);
  EXPECT_DOUBLE_EQ(
      group.trajectories[0].reward,
      0.7 * PerplexityScore(std::log(group.trajectories[0].rewards.at(1).value), 10, 1000));
  EXPECT_THROW(GroupScorer{config}, Error) << "without a tokenizer";
}

TEST_F(PerplexityTest, RefusesWrongBoundsAndModels) {
  for (const char* bad : {"low=0.5", "low=x", "high=5", "high=inf", "top=3"})
    EXPECT_THROW(Make({bad}), Error) << bad;
  EXPECT_THROW(Make({}, "nowhere"), Error);
  Save(policy_model::ScalarHeadFrom(*weights_, 8), "rm");
  EXPECT_THROW(Make({}, "rm"), Error);
}

}  // namespace
}  // namespace plumb::reward
