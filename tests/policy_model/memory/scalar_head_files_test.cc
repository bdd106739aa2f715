// The files of a head on a policy's trunk (policy_model/memory/scalar_head.h), for every family.
#include "policy_model/memory/scalar_head.h"

#include <gtest/gtest.h>

#include <cstring>

#include "policy_model/families/model_config.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using plumb::testing::TempFolder;

class HeadFilesTest : public ::testing::TestWithParam<std::string> {};

// As a checkpoint of PPO with critic.mode = "shared" writes its critic, and a resume reads it.
TEST_P(HeadFilesTest, AreReadBackBitForBit) {
  const TempFolder folder;
  WriteFamilyFolder(GetParam(), folder / "policy");
  const ModelShape shape = ReadModelConfig(folder / "policy", LongestOf(GetParam()));
  Weights policy(shape, Device::kCpu, DType::kFloat32);
  const Weights head = ValueHeadFor(policy, 7);
  EXPECT_EQ(head.shape().hidden, shape.hidden);
  EXPECT_EQ(head.shape().norm_eps, shape.norm_eps);
  SaveModelDirectory(head, folder / "critic", "", "");
  Weights read = ValueHeadFor(policy, 8);
  ASSERT_NE(read.ComputeDigest(), head.ComputeDigest());
  read.LoadTrained(folder / "critic");
  EXPECT_EQ(read.ComputeDigest(), head.ComputeDigest());
  EXPECT_EQ(std::memcmp(read.flat().f32() + read.table().score(),
                        head.flat().f32() + head.table().score(),
                        sizeof(float) * static_cast<size_t>(shape.hidden)),
            0);
}

INSTANTIATE_TEST_SUITE_P(Families, HeadFilesTest, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace plumb::policy_model
