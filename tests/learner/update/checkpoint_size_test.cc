// How much a checkpoint takes: what is said against what then lies on the disk.
#include "learner/update/checkpoint_size.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

namespace fs = std::filesystem;
using plumb::testing::TempFolder;

policy_model::ModelShape Wide() {
  policy_model::ModelShape shape = TinyShape();
  shape.hidden = 128;
  shape.head_dim = 32;
  shape.ffn = 256;
  return shape;
}

struct Model {
  policy_model::Weights weights;
  Optimizer optimizer;
  explicit Model(DType dtype) : weights(Wide(), Device::kCpu, dtype), optimizer(Drawn(), {}) {}
  policy_model::Weights& Drawn() {
    weights.Initialise(1, 0.3);
    return weights;
  }
};

double Below(const std::string& folder) {
  double sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) sum += static_cast<double>(entry.file_size());
  }
  return sum;
}

TEST(CheckpointSizeTest, IsWhatIsWritten) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool moments : {true, false}) {
      const TempFolder folder;
      Model policy(dtype), critic(dtype);
      const std::vector<NamedModel> models = {
          {.name = "critic", .weights = &critic.weights, .optimizer = &critic.optimizer}};
      Checkpoints checkpoints(folder / "c", 1, "");
      checkpoints.Save({.step = 3,
                        .policy = {.version = 3, .digest = policy.weights.ComputeDigest()},
                        .moments = moments},
                       policy.weights, policy.optimizer, models);
      const auto said = static_cast<double>(
          CheckpointBytes(policy.weights, policy.optimizer, models, {.moments = moments}));
      EXPECT_NEAR(Below(folder / "c"), said, 25'000) << "but for headers and the manifest";
      EXPECT_GT(said, 1e6);
      const double a_parameter =
          said / (2 * static_cast<double>(policy.weights.table().parameters()));
      const double wanted = dtype == DType::kFloat32 ? 4 : 4;  // bfloat16: 2, and half a master
      EXPECT_NEAR(a_parameter, wanted + (moments ? 8 : 0), 0.01);
    }
  }
}

TEST(CheckpointSizeTest, AnOldOneStandsBesideTheNewUntilThatIsComplete) {
  EXPECT_EQ((SavePlan{.between = 0, .each = 12, .last = 4}).Needed(), 4);
  EXPECT_EQ((SavePlan{.between = 1, .each = 12, .last = 4}).Needed(), 12 + 4);
  EXPECT_EQ((SavePlan{.between = 9, .each = 12, .last = 4}).Needed(), 12 + 12);
  EXPECT_EQ((SavePlan{.between = 9, .each = 12, .last = 4, .keep = 3}).Needed(), 3 * 12 + 12);
  EXPECT_EQ((SavePlan{.between = 2, .each = 12, .last = 4, .keep = 3}).Needed(), 2 * 12 + 4);
  EXPECT_EQ((SavePlan{.between = 9, .each = 12, .last = 4, .kept = 1}).Needed(), 12)
      << "the old one lies there already";
  // One of three holds the optimizer: beside the newest and the new one the last of those stays.
  EXPECT_EQ((SavePlan{.between = 9, .each = 12, .last = 4, .apart = 3, .light = 2}).Needed(),
            2 * 12 + 2 + 12);
  EXPECT_EQ((SavePlan{.between = 1, .each = 12, .last = 4, .apart = 3, .light = 2}).Needed(),
            12 + 4);
  EXPECT_EQ((SavePlan{.each = 12, .apart = 5, .light = 2}).Mean(), 4);
}

TEST(CheckpointSizeTest, WhatCannotFitIsRefusedWithBothNumbers) {
  const SavePlan plan{.between = 3, .each = 1'600'000'000, .last = 540'000'000};
  EXPECT_NO_THROW(CheckFits(plan, 1'600'000'000, "runs/x"));
  try {
    CheckFits(plan, 900'000'000, "runs/x");
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNoSpace);
    EXPECT_EQ(e.where(), "runs/x");
    EXPECT_NE(e.message().find("a checkpoint takes 1.6 GB and 900 MB are free"), std::string::npos)
        << e.message();
  }
  const TempFolder folder;
  EXPECT_GT(FreeBytes(folder.path()), 0);
  EXPECT_THROW(FreeBytes(folder / "none"), Error);
}

// One kept: whatever the moment a process dies at, a whole one is there.
TEST(CheckpointSizeTest, TheModelIsSharedAndNotStoredTwice) {
  const TempFolder folder;
  Model policy(DType::kBFloat16);
  RealFileSystem().CreateDirectories(folder / "tokenizer");
  RealFileSystem().WriteFileAtomic(folder / "tokenizer/tokenizer.json", "{}");
  Checkpoints checkpoints(folder / "c", 1, folder / "tokenizer");
  for (const int64_t step : {1, 2}) {
    policy.weights.Initialise(static_cast<uint64_t>(step), 0.3);
    checkpoints.Save(
        {.step = step, .policy = {.version = step, .digest = policy.weights.ComputeDigest()}},
        policy.weights, policy.optimizer);
    checkpoints.ShareModel(step, folder / "model");
    const std::string model = folder / "model/model.safetensors";
    EXPECT_EQ(fs::hard_link_count(model), 2u);
    EXPECT_EQ(fs::hard_link_count(folder / "model/tokenizer.json"), 1u)
        << "what people edit is a file of its own";
    policy_model::Weights read(Wide(), Device::kCpu, DType::kBFloat16);
    read.Load(folder / "model");
    EXPECT_EQ(read.ComputeDigest(), policy.weights.ComputeDigest());
  }
  EXPECT_FALSE(fs::exists(folder / "c/step-00000001")) << "one is kept";
  EXPECT_FALSE(fs::exists(folder / "model.new"));
  RealFileSystem().RemoveAll(folder / "c");
  EXPECT_TRUE(fs::exists(folder / "model/model.safetensors"));
}

}  // namespace
}  // namespace plumb::learner
