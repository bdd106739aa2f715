// policy_model/vocabulary.h: a rank's own tokens, and numbers of rows from the parts of ranks. With
// ranks that talk to each other: tests/learner/update/shares/model_share_test.cc.
#include "policy_model/vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

// The second of two ranks, of which the first has the same logits.
struct Twin : TensorGroup {
  int rank() const override { return 1; }
  int size() const override { return 2; }
  void Sum(const Stream&, DType, void*, int64_t n) override { summed += n; }
  void Gather(std::span<const float> own, std::span<float> all) override {
    std::copy(own.begin(), own.end(), all.begin());
    std::copy(own.begin(), own.end(), all.begin() + static_cast<int64_t>(own.size()));
  }
  int64_t summed = 0;
};

PackedBatch Batch() {
  PackedBatch batch;
  batch.Append(std::vector<int32_t>{0, 6, 9, 3, 5}, std::vector<uint8_t>{0, 1, 1, 1, 1});
  return batch;
}

TEST(VocabularyTest, AWholeOneTakesTargetsAsTheyAre) {
  Vocabulary vocabulary(Device::kCpu, 10);
  vocabulary.Begin(Batch());
  const int32_t targets[] = {1, 2};
  EXPECT_EQ(vocabulary.Targets(targets), targets);
  EXPECT_EQ(vocabulary.all(), 10);
  EXPECT_EQ(vocabulary.first(), 0);
}

TEST(VocabularyTest, ARankLooksUpItsOwnTokens) {
  const ModelShape shape = {.layers = 1,
                            .hidden = 4,
                            .heads = 2,
                            .kv_heads = 2,
                            .head_dim = 2,
                            .ffn = 4,
                            .vocab = 5,
                            .max_positions = 8};
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 1);
  Twin group;
  Vocabulary vocabulary(Device::kCpu, 5);
  vocabulary.Use(&group, 10);
  EXPECT_EQ(vocabulary.first(), 5);
  EXPECT_EQ(vocabulary.all(), 10);
  const PackedBatch batch = Batch();
  vocabulary.Begin(batch);
  const int32_t* targets = vocabulary.Targets(nullptr);  // of 6 9 3 5
  EXPECT_EQ(std::vector<int32_t>(targets, targets + 4), (std::vector<int32_t>{1, 4, -1, 0}));
  Arena saved(Device::kCpu), scratch(Device::kCpu);
  const PackedPass pass{{{.stream = Device::kCpu, .dtype = DType::kFloat32}, weights, {}},
                        {{.tokens = 5}},
                        nullptr,
                        true,
                        saved,
                        scratch};
  std::vector<float> own(20), x(20, 7.0f);
  const int64_t at = weights.table().embedding();
  vocabulary.Embed(pass, pass.tokens(), at, nullptr, 2, own.data(), x.data());
  EXPECT_EQ(group.summed, 20);
  const float* table = weights.flat().f32() + at;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(x[i], 0) << "token 0 is the other rank's";
    EXPECT_EQ(x[4 + i], 2 * table[4 + i]) << "token 6 is its row 1";
    EXPECT_EQ(x[12 + i], 0);
    EXPECT_EQ(x[16 + i], 2 * table[i]);
  }
}

// Twice as many tokens of the same logits: each half as likely.
TEST(VocabularyTest, PartsMakeUpTheDistributionOfAll) {
  Twin group;
  Vocabulary vocabulary(Device::kCpu, 5);
  vocabulary.Use(&group, 10);
  std::vector<float> logprob = {-1, -INFINITY}, entropy = {1.5f, 0.25f}, lse = {3, NAN};
  vocabulary.Combine(Device::kCpu, 2, logprob.data(), entropy.data(), lse.data());
  EXPECT_NEAR(logprob[0], -1 - std::log(2), 1e-6);
  EXPECT_NEAR(entropy[0], 1.5 + std::log(2), 1e-6);
  EXPECT_NEAR(lse[0], 3 + std::log(2), 1e-6);
  EXPECT_TRUE(std::isnan(logprob[1])) << "what is not finite stays so";
}

TEST(VocabularyTest, TokensOfAPartOfTheVocabularyAreRefused) {
  Twin group;
  Vocabulary vocabulary(Device::kCpu, 5);
  vocabulary.Use(&group, 10);
  PackedBatch batch = Batch();
  batch.filtered = true;
  EXPECT_THROW(vocabulary.Begin(batch), Error);
}

}  // namespace
}  // namespace plumb::policy_model
