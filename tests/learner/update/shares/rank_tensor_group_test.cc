// learner/update/shares/rank_tensor_group.h: what rank 0 has whole, each rank gets its share of,
// bit for bit; sums of both types.
#include "learner/update/shares/rank_tensor_group.h"

#include <gtest/gtest.h>

#include <cstring>

#include "learner/update/shares/model_share.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

TEST(RankTensorGroupTest, RankZeroSpreadsTheSharesThatRanksCutThemselves) {
  policy_model::ModelShape shape = TinyShape();
  shape.vocab = 19;
  shape.kv_heads = 4;
  shape.attention_bias = shape.output_bias = shape.mlp_bias = true;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    AsRanks(4, [&](Ranks* ranks) {
      RankTensorGroup group(*ranks, Device::kCpu);
      Weights known(shape, Device::kCpu, dtype);
      known.Initialise(4, 0.3);
      ModelShare cut(*ranks, known);
      const Weights tables = Weights::WithoutMemory(shape, Device::kCpu, dtype);
      Weights share(policy_model::ShareOf(shape, ranks->rank(), 4, "rollout.tp"), Device::kCpu,
                    dtype);
      group.Spread(ranks->first() ? known : tables, share);
      EXPECT_EQ(share.flat().bytes(), cut.weights().flat().bytes());
      EXPECT_EQ(std::memcmp(share.flat().data(), cut.weights().flat().data(), share.flat().bytes()),
                0)
          << ranks->rank();
    });
  }
}

TEST(RankTensorGroupTest, SumsAreOfAllRanks) {
  AsRanks(2, [](Ranks* ranks) {
    RankTensorGroup group(*ranks, Device::kCpu);
    EXPECT_EQ(group.rank(), ranks->rank());
    const float own = ranks->first() ? 1.5f : 2.0f;
    std::vector<float> values(100, own);
    group.Sum(Device::kCpu, DType::kFloat32, values.data(), 100);
    EXPECT_EQ(values, std::vector<float>(100, 3.5f));
    std::vector<uint16_t> halves(7);
    policy_model::ConvertFloat(std::vector<float>(7, own), DType::kBFloat16, halves.data());
    group.Sum(Device::kCpu, DType::kBFloat16, halves.data(), 7);
    std::vector<float> sums(7);
    policy_model::ConvertToFloat(halves.data(), DType::kBFloat16, sums);
    EXPECT_EQ(sums, std::vector<float>(7, 3.5f));
    std::vector<float> all(2);
    group.Gather(std::span(&own, 1), all);
    EXPECT_EQ(all, (std::vector<float>{1.5f, 2.0f}));
  });
}

}  // namespace
}  // namespace plumb::learner
