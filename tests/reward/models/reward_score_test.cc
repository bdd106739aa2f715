// The reward part that scores with a model against transformers' LlamaForSequenceClassification, on
// a folder that transformers saved.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "reward/models/reward_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

TEST(RewardScoreTest, EqualsTransformersOnAFolderThatItSaved) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/reward_score.json");
  ASSERT_TRUE(file.good());
  const nlohmann::json golden = nlohmann::json::parse(file);
  const testing::TempFolder temp;
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  std::filesystem::copy(PLUMB_SOURCE_DIR "/tests/golden/tiny_llama_score", temp / "rm");
  RealFileSystem().WriteFileAtomic(temp / "rm/tokenizer.json", tokenizer->json());

  TrajectoryGroup group;
  for (const auto& sequence : golden["sequences"]) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(group.trajectories.size());
    t.tokens = sequence.get<std::vector<int32_t>>();
    group.trajectories.push_back(t);
  }
  // At most 4 times the error that transformers makes in float32 itself; packed in one pass, and in
  // several.
  const double bound = 4 * golden["gap"].get<double>();
  for (const char* budget : {"batch_tokens=8192", "batch_tokens=30"}) {
    configs::RewardPartConfig part;
    part.name = part.kind = "reward_model";
    part.path = temp / "rm";
    part.args = {budget, "dtype=float32"};
    const auto scores =
        MakeRewardModel(part, *tokenizer)->Score(group, After(std::chrono::seconds(60)));
    ASSERT_EQ(scores.size(), golden["scores"].size());
    for (size_t i = 0; i < scores.size(); ++i) {
      ASSERT_TRUE(scores[i].scored()) << scores[i].reason;
      EXPECT_NEAR(scores[i].value, golden["scores"][i].get<double>(), bound) << i << " " << budget;
    }
    // The folder pads with token 0: transformers looks for the last other one, whoever wrote the
    // padding.
    TrajectoryGroup padded = group;
    for (Trajectory& t : padded.trajectories)
      t.tokens.resize(std::min<size_t>(64, t.tokens.size() + 1 + t.sample % 2), 0);
    const auto same =
        MakeRewardModel(part, *tokenizer)->Score(padded, After(std::chrono::seconds(60)));
    for (size_t i = 0; i < same.size(); ++i)
      EXPECT_NEAR(same[i].value, scores[i].value, 1e-6) << i << " " << budget;
  }
}

}  // namespace
}  // namespace plumb::reward
