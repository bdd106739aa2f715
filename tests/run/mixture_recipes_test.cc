// The two reward mixtures of configs/: they load as they are written, score, and train a tiny
// model.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/weights.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

std::string Recipe(const std::string& name) {
  return std::string(PLUMB_SOURCE_DIR "/configs/") + name + ".toml";
}

// A language model of the demo's vocabulary, which knows nothing.
void SaveTinyModel(const std::string& folder) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::Weights weights({.family = "llama",
                                 .layers = 1,
                                 .hidden = 32,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .ffn = 64,
                                 .vocab = tokenizer->size(),
                                 .max_positions = 128,
                                 .tied = true,
                                 .eos_tokens = {2}},
                                Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.3);
  policy_model::SaveModelDirectory(weights, folder, "");
  RealFileSystem().WriteFileAtomic(folder + "/tokenizer.json", tokenizer->json());
}

// The recipe over the demo's sums, with a model of 30 thousand parameters made from nothing.
std::vector<std::string> Tiny(std::vector<std::string> line) {
  for (const char* set :
       {"run.threads=1", "run.checkpoint_every=0", "model.path=", "model.dtype=float32",
        "model.layers=1", "model.hidden=32", "model.heads=2", "model.kv_heads=2", "model.ffn=64",
        "model.max_positions=64", "model.vocabulary=arithmetic", "data.train=arithmetic",
        "data.prompt_suffix=", "data.limit=16", "rollout.prompts_per_step=4",
        "rollout.max_new_tokens=12", "rollout.kv_budget_mb=64"}) {
    line.insert(line.end(), {"--set", set});
  }
  return line;
}

TEST(MixtureRecipes, SayWhatTheyAre) {
  const std::vector<std::vector<std::string>> expected = {
      {"mix_quality_ppo", "weight = 0.4", "weight = 0.3", "weight = 0.2", "weight = 0.1"},
      {"mix_task_ppo", "weight = 0.7", "weight = 0.3"}};
  for (const auto& words : expected) {
    const auto shown = RunPlumb({"config", "show", Recipe(words[0]), "--toml"});
    ASSERT_EQ(shown.code, 0) << shown.err;
    for (size_t i = 1; i < words.size(); ++i)
      EXPECT_TRUE(Has(shown.out, words[i])) << words[i] << shown.out;
    for (const char* word : {"name = \"ppo\"", "clip_low = 0.2", "clip_high = 0.2", "vf_coef = 0.5",
                             "entropy_coef = 0.01", "mode = \"shared\""}) {
      EXPECT_TRUE(Has(shown.out, word)) << word << "\n" << shown.out;
    }
  }
}

TEST(MixtureRecipes, QualityScoresAndTrains) {
  const TempFolder temp;
  const auto tested = RunPlumb(Tiny({"reward", "test", Recipe("mix_quality_ppo"), "--json"}));
  ASSERT_EQ(tested.code, 0) << tested.err;
  for (const auto& part : nlohmann::json::parse(tested.out)["parts"]) {
    EXPECT_EQ(part["failed"], 0) << part;
    EXPECT_GE(part["min"].get<double>(), 0) << part;
    EXPECT_LE(part["max"].get<double>(), 1) << part;
  }
  const auto trained =
      RunPlumb(Tiny({"train", Recipe("mix_quality_ppo"), "--out", temp / "run", "--steps", "3"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto metrics = testing::Lines(temp / "run/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 3u);
  for (const char* part : {"correct", "coherent", "diverse", "safe"}) {
    EXPECT_TRUE(metrics.back().contains("reward/" + std::string(part) + "/mean")) << part;
  }
}

TEST(MixtureRecipes, TaskScoresAndTrains) {
  const TempFolder temp;
  SaveTinyModel(temp / "base");
  // sums have no worked solution
  const std::vector<std::string> more = {"--set", "reward.parts.0.path=" + (temp / "base"), "--set",
                                         "reward.parts.1.args=[]"};
  std::vector<std::string> line = Tiny({"reward", "test", Recipe("mix_task_ppo"), "--json"});
  line.insert(line.end(), more.begin(), more.end());
  const auto tested = RunPlumb(line);
  ASSERT_EQ(tested.code, 0) << tested.err;
  for (const auto& part : nlohmann::json::parse(tested.out)["parts"])
    EXPECT_EQ(part["failed"], 0) << part;
  line = Tiny({"train", Recipe("mix_task_ppo"), "--out", temp / "run", "--steps", "3"});
  line.insert(line.end(), more.begin(), more.end());
  const auto trained = RunPlumb(line);
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto metrics = testing::Lines(temp / "run/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 3u);
  for (const char* name : {"reward/base/mean", "reward/base.ppl/mean", "reward/task/mean"})
    EXPECT_TRUE(metrics.back().contains(name)) << name;
}

}  // namespace
}  // namespace plumb::run
