// plumb train with a reward model as a part (reward/models/reward_model.h): in one process and with
// the model in the reward role.
#include "reward/models/reward_model.h"

#include <gtest/gtest.h>

#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

// A reward model that knows nothing, of the demo's vocabulary: its numbers differ from answer to
// answer.
void SaveRewardModel(const std::string& folder) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::Weights policy({.family = "llama",
                                .layers = 1,
                                .hidden = 32,
                                .heads = 2,
                                .kv_heads = 2,
                                .head_dim = 16,
                                .ffn = 64,
                                .vocab = tokenizer->size(),
                                .max_positions = 256,
                                .tied = true,
                                .eos_tokens = {2}},
                               Device::kCpu, DType::kFloat32);
  policy.Initialise(6, 0.3);
  const policy_model::Weights model = policy_model::ScalarHeadFrom(policy, 8);
  policy_model::SaveModelDirectory(model, folder, "");
  RealFileSystem().WriteFileAtomic(folder + "/tokenizer.json", tokenizer->json());
}

// The toy recipe with the model's part behind its own.
std::vector<std::string> LineWith(const std::string& out, const std::string& model,
                                  const std::vector<std::string>& more) {
  std::vector<std::string> line = testing::TrainLine(out, 2, more);
  std::string text = testing::Read(line[1]);
  text.insert(
      text.find("\n[[reward.parts]]"),
      "\n[[reward.parts]]\nname = \"liked\"\nkind = \"reward_model\"\nweight = 0.1\npath = \"" +
          model + "\"\n");
  RealFileSystem().WriteFileAtomic(line[1], text);
  return line;
}

TEST(RewardModelTrainTest, ScoresInTheRewardRoleAsInOneProcess) {
  const TempFolder temp;
  const std::string model = temp / "rm";
  SaveRewardModel(model);
  const testing::CliOutput local = testing::RunPlumb(LineWith(temp / "local", model, {}));
  ASSERT_EQ(local.code, 0) << local.err;
  const auto metrics = testing::Lines(temp / "local/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 2u);
  for (const auto& line : metrics) {
    EXPECT_TRUE(line.contains("reward/liked/mean"));
    EXPECT_NE(line["reward/liked/mean"].get<double>(), 0);
  }

  std::string command = "timeout 120 " PLUMB_BINARY_DIR "/plumb";
  for (const std::string& word :
       LineWith(temp / "processes", model, {"--set", "run.roles=processes"}))
    command += " '" + word + "'";
  ASSERT_EQ(std::system((command + " >" + (temp / "processes.out") + " 2>&1").c_str()), 0)
      << testing::Read(temp / "processes.out");
  testing::ExpectSameRun(temp / "local", temp / "processes");
  const auto other = testing::Lines(temp / "processes/metrics.jsonl");
  for (size_t i = 0; i < metrics.size(); ++i)
    EXPECT_EQ(metrics[i]["reward/liked/mean"], other[i]["reward/liked/mean"]);
}

TEST(RewardModelTrainTest, AFolderWithoutAModelStopsTheRunAtItsStart) {
  const TempFolder temp;
  const testing::CliOutput output = testing::RunPlumb(LineWith(temp / "run", temp / "nowhere", {}));
  EXPECT_NE(output.code, 0);
  EXPECT_NE(output.err.find("a model is a folder with config.json"), std::string::npos)
      << output.err;
}

}  // namespace
}  // namespace plumb::run
