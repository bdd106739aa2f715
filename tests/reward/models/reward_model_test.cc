// reward/models/reward_model.h: values equal to the model's own forward pass, whatever is packed
// together; refusals that say why.
#include "reward/models/reward_model.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"
#include "reward/scorer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using plumb::Tokenizer;
using policy_model::ModelShape;
using policy_model::Weights;

class RewardModelTest : public ::testing::Test {
 protected:
  RewardModelTest() : tokenizer_(Tokenizer::BuiltIn("arithmetic")) {
    Weights policy(Shape(), Device::kCpu, DType::kFloat32);
    policy.Initialise(6, 0.3);
    model_ = std::make_unique<Weights>(policy_model::ScalarHeadFrom(policy, 8));
    Save(*model_, "rm", tokenizer_->json());
    Save(policy, "policy", tokenizer_->json());
  }

  ModelShape Shape() const {
    return {.family = "llama",
            .layers = 2,
            .hidden = 32,
            .heads = 4,
            .kv_heads = 2,
            .head_dim = 8,
            .ffn = 48,
            .vocab = tokenizer_->size(),
            .max_positions = 48,
            .tied = true,
            .eos_tokens = {2}};
  }

  void Save(const Weights& weights, const std::string& name, const std::string& tokenizer) const {
    policy_model::SaveModelDirectory(weights, Path(name), "");
    if (!tokenizer.empty())
      RealFileSystem().WriteFileAtomic(Path(name) + "/tokenizer.json", tokenizer);
  }

  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  configs::RewardPartConfig Part(const std::string& folder = "rm",
                                 std::vector<std::string> args = {}) const {
    configs::RewardPartConfig part;
    part.name = "helpful";
    part.kind = "reward_model";
    part.path = Path(folder);
    part.args = std::move(args);
    return part;
  }

  TrajectoryGroup Group(const std::vector<int>& lengths) const {
    TrajectoryGroup group;
    RandomStream random(5, 1);
    for (int n : lengths) {
      Trajectory t;
      t.sample = static_cast<uint32_t>(group.trajectories.size());
      for (int i = 0; i < n; ++i) {
        t.tokens.push_back(
            static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(tokenizer_->size()))));
      }
      t.completion = "words that a reward model does not look at";
      group.trajectories.push_back(t);
    }
    return group;
  }

  // The head's number at the last token, one sequence a pass.
  double Expected(const std::vector<int32_t>& tokens) const {
    policy_model::Transformer transformer(model_->shape(), Device::kCpu, DType::kFloat32);
    policy_model::PackedBatch batch;
    batch.Clear();
    std::vector<int32_t> all(tokens.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
    batch.AppendRows(tokens, all);
    std::vector<float> values(tokens.size());
    transformer.ForwardValues(*model_, batch, false, values);
    return values.back();
  }

  void ExpectRefused(const configs::RewardPartConfig& part, const std::string& why) const {
    try {
      MakeRewardModel(part, *tokenizer_);
      ADD_FAILURE() << "not refused: " << why;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(why), std::string::npos) << e.what();
    }
  }

  testing::TempFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Weights> model_;
};

TEST_F(RewardModelTest, ScoresTheLastTokenOfEachWholeSequence) {
  const TrajectoryGroup group = Group({9, 17, 1, 30, 12});
  for (const char* budget : {"batch_tokens=8192", "batch_tokens=20"}) {
    const auto part = MakeRewardModel(Part("rm", {budget}), *tokenizer_);
    const auto scores = part->Score(group, After(std::chrono::seconds(60)));
    ASSERT_EQ(scores.size(), 5u);
    double smallest = 1e9, largest = -1e9;
    for (size_t i = 0; i < scores.size(); ++i) {
      ASSERT_TRUE(scores[i].scored()) << scores[i].reason;
      EXPECT_NEAR(scores[i].value, Expected(group.trajectories[i].tokens), 1e-5)
          << i << " " << budget;
      smallest = std::min(smallest, scores[i].value);
      largest = std::max(largest, scores[i].value);
    }
    EXPECT_GT(largest - smallest, 0.01) << "scores that hardly differ would hide a wrong row";
  }
}

TEST_F(RewardModelTest, GivesTheRawValueWithTheWeightsDigest) {
  configs::RewardConfig config;
  config.parts = {Part()};
  config.parts[0].weight = 0.5;
  GroupScorer scorer(config, WithModelParts(*tokenizer_));
  TrajectoryGroup group = Group({7, 11});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored);
  for (const Trajectory& t : group.trajectories) {
    ASSERT_EQ(t.rewards.size(), 1u);
    EXPECT_NEAR(t.rewards[0].value, Expected(t.tokens), 1e-5);
    EXPECT_DOUBLE_EQ(t.reward, 0.5 * t.rewards[0].value);
    EXPECT_EQ(t.rewards[0].function_digest, "reward_model:" + model_->ComputeDigest());
  }
  // Without a run's tokenizer the part cannot be made, and says so.
  EXPECT_THROW(GroupScorer{config}, Error);
}

TEST_F(RewardModelTest, WhatItCannotReadFailsAlone) {
  TrajectoryGroup group = Group({7, 49, 0, 5});
  group.trajectories[3].tokens[2] = tokenizer_->size();
  const auto scores =
      MakeRewardModel(Part(), *tokenizer_)->Score(group, After(std::chrono::seconds(60)));
  EXPECT_TRUE(scores[0].scored());
  EXPECT_NE(scores[1].reason.find("49 tokens"), std::string::npos) << scores[1].reason;
  EXPECT_NE(scores[2].reason.find("no tokens"), std::string::npos) << scores[2].reason;
  EXPECT_NE(scores[3].reason.find("outside"), std::string::npos) << scores[3].reason;
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(scores[i].failure, Failure::kReported);
}

TEST_F(RewardModelTest, APassedDeadlineIsATimeoutNotAZero) {
  const auto scores =
      MakeRewardModel(Part(), *tokenizer_)->Score(Group({7, 9}), After(std::chrono::seconds(-1)));
  for (const PartScore& s : scores) EXPECT_EQ(s.failure, Failure::kTimeout);
}

TEST_F(RewardModelTest, NumbersThatAreNotFiniteFail) {
  model_->flat().f32()[model_->table().score()] = std::numeric_limits<float>::quiet_NaN();
  Save(*model_, "nan", tokenizer_->json());
  const auto scores =
      MakeRewardModel(Part("nan"), *tokenizer_)->Score(Group({7}), After(std::chrono::seconds(60)));
  EXPECT_EQ(scores[0].failure, Failure::kNotFinite);
}

TEST_F(RewardModelTest, HalfPrecisionIsAnOption) {
  const TrajectoryGroup group = Group({9, 17});
  const auto scores = MakeRewardModel(Part("rm", {"dtype=bfloat16"}), *tokenizer_)
                          ->Score(group, After(std::chrono::seconds(60)));
  for (size_t i = 0; i < 2; ++i) {
    const double exact = Expected(group.trajectories[i].tokens);
    EXPECT_NEAR(scores[i].value, exact, 0.1);
    EXPECT_NE(scores[i].value, exact);
  }
}

TEST_F(RewardModelTest, RefusesWhatIsNoRewardModelOfThisPolicy) {
  ExpectRefused(Part("policy"), "no scalar head");
  ExpectRefused(Part("nowhere"), "config.json is missing");
  configs::RewardPartConfig none = Part();
  none.path = "";
  ExpectRefused(none, "needs path");
  none = Part();
  none.workers = 2;
  ExpectRefused(none, "workers has to be 1");
  ExpectRefused(Part("rm", {"dtype=int8"}), "dtype=bfloat16");
  ExpectRefused(Part("rm", {"batch_tokens=0"}), "at least 1");
  ExpectRefused(Part("rm", {"batch_tokens=9x"}), "at least 1");
  Save(*model_, "bare", "");
  ExpectRefused(Part("bare"), "no tokenizer.json");

  // The same size, two tokens exchanged: its numbers would mean other texts.
  std::string other = tokenizer_->json();
  const size_t three = other.find("\"3\""), four = other.find("\"4\"");
  ASSERT_NE(three, std::string::npos);
  ASSERT_NE(four, std::string::npos);
  std::swap(other[three + 1], other[four + 1]);
  Save(*model_, "other", other);
  ExpectRefused(Part("other"), "not the policy's");
}

TEST_F(RewardModelTest, AGpuThatIsNotThereIsSaidWithThePart) {
  try {
    const auto model = MakeRewardModel(Part("rm", {"device=cuda"}), *tokenizer_);
    // With a GPU the scores are those of the CPU, up to the rounding of its products.
    const TrajectoryGroup group = Group({5, 17, 40});
    const auto there = model->Score(group, After(std::chrono::seconds(20)));
    const auto here =
        MakeRewardModel(Part("rm"), *tokenizer_)->Score(group, After(std::chrono::seconds(20)));
    for (size_t i = 0; i < there.size(); ++i)
      EXPECT_NEAR(there[i].value, here[i].value, 1e-4 * (1 + std::abs(here[i].value)));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
    EXPECT_NE(std::string(error.what()).find("'helpful'"), std::string::npos) << error.what();
  }
  EXPECT_THROW(MakeRewardModel(Part("rm", {"device=tpu"}), *tokenizer_), Error);
}

}  // namespace
}  // namespace plumb::reward
