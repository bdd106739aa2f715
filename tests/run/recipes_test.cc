// Every recipe of configs/ starts from a clone that has nothing beside it, whatever the working
// folder, and trains a step.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

std::string Utf8(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// A token a byte, written as byte-level tokenizers write bytes, and the two marks of a dialogue.
nlohmann::json ByteTokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  int hidden = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool shown = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    vocab[Utf8(shown ? byte : hidden++)] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  for (const auto& [text, id] : {std::pair("<|im_start|>", 256), std::pair("<|im_end|>", 257)}) {
    vocab[text] = id;
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
}

void SaveModel(const std::string& folder, bool scalar_head) {
  policy_model::Weights weights({.family = "llama",
                                 .layers = 1,
                                 .hidden = 32,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .ffn = 64,
                                 .vocab = 258,
                                 .max_positions = 4096,
                                 .tied = true,
                                 .eos_tokens = {257}},
                                Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.3);
  policy_model::SaveModelDirectory(
      scalar_head ? policy_model::ScalarHeadFrom(weights, 4) : std::move(weights), folder, "");
  RealFileSystem().WriteFileAtomic(folder + "/tokenizer.json", ByteTokenizer().dump());
  const nlohmann::json config = {
      {"eos_token", "<|im_end|>"},
      {"chat_template",
       "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
       "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"}};
  RealFileSystem().WriteFileAtomic(folder + "/tokenizer_config.json", config.dump());
}

// The recipes lie in a clone of their own, where they look for data and models, and the program is
// somewhere else.
class Recipes : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(clone_ + "/examples");
    fs::copy(plumb::testing::SourcePath("configs"), clone_ + "/configs");
    fs::copy(plumb::testing::SourcePath("examples/data"), clone_ + "/examples/data");
    SaveModel(clone_ + "/models/SmolLM2-135M-Instruct", false);
    SaveModel(clone_ + "/runs/rm_hh/model", true);
  }

  std::vector<std::string> Line(const std::string& recipe, const std::string& out) const {
    std::vector<std::string> line = {
        "train", clone_ + "/configs/" + recipe, "--out", out, "--steps", "1"};
    for (const char* set :
         {"run.threads=1", "model.dtype=float32", "sft.batch=2", "data.eval_prompts=4",
          "data.max_prompt_tokens=3000", "rollout.prompts_per_step=2",
          "rollout.samples_per_prompt=2", "rollout.max_new_tokens=4", "rollout.max_batch=4",
          "rollout.kv_budget_mb=64", "algorithm.minibatches=1", "preference.batch=2",
          "preference.heldout=4", "preference.max_tokens=3000", "optimizer.micro_batch_tokens=8192",
          "environment.reply_tokens=2", "eval.bar=0"}) {
      line.insert(line.end(), {"--set", set});
    }
    return line;
  }

  const TempFolder temp_;
  const std::string clone_ = temp_ / "clone";
};

TEST_F(Recipes, StartFromAFreshCloneAndTrainAStep) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(clone_ + "/configs")) {
    if (entry.path().extension() != ".toml") continue;
    const std::string recipe = entry.path().filename(),
                      out = temp_ / ("run_" + entry.path().stem().string());
    std::vector<std::string> line = Line(recipe, out);
    if (recipe == "toy_dpo.toml") {  // trains on what two other commands leave behind (its header)
      line.insert(line.end(), {"--set", "model.path=../models/SmolLM2-135M-Instruct", "--set",
                               "data.train=../examples/data/hh_harmless_pairs.jsonl"});
    }
    if (recipe == "sft_gsm8k.toml") line.insert(line.end(), {"--set", "sft.max_tokens=3000"});
    // Trains on what the stage before it leaves behind; the recipe with the stages runs it.
    if (recipe == "r1_tiny_dpo.toml" || recipe == "toy_distill_student.toml") continue;
    const auto trained = RunPlumb(line);
    EXPECT_EQ(trained.code, 0) << recipe << ": " << trained.err << trained.out;
    const std::vector<std::string> stages =
        recipe == "r1_tiny.toml" ? std::vector<std::string>{"/1-sft", "/2-rm", "/3-dpo", "/4-ppo"}
        : recipe == "toy_distill.toml" ? std::vector<std::string>{"/1-teacher", "/2-student"}
                                       : std::vector<std::string>{""};
    for (const std::string& stage : stages)
      EXPECT_EQ(testing::Lines(out + stage + "/metrics.jsonl").size(), 1u) << recipe << stage;
    ++count;
  }
  EXPECT_GE(count, 19);
}

TEST_F(Recipes, NameTheFullPathsThatWereTried) {
  fs::remove_all(clone_ + "/examples");
  fs::remove_all(clone_ + "/models");
  const auto refused = RunPlumb(Line("gsm8k_smollm2.toml", temp_ / "run"));
  EXPECT_EQ(refused.code, 3) << refused.err;
  for (const std::string& tried :
       {clone_ + "/examples/data/gsm8k_train.jsonl", clone_ + "/models/SmolLM2-135M-Instruct",
        fs::weakly_canonical(fs::absolute("../examples/data/gsm8k_train.jsonl")).string()}) {
    EXPECT_TRUE(Has(refused.err, tried)) << tried << " is not in " << refused.err;
  }
  EXPECT_FALSE(fs::exists(temp_ / "run")) << "nothing is begun";
}

TEST_F(Recipes, PreferTheWorkingFolder) {
  const auto shown = RunPlumb({"config", "show", clone_ + "/configs/gsm8k_smollm2.toml", "--toml",
                               "--set", "data.train=README.md"});
  // tests run in the source folder
  EXPECT_TRUE(Has(shown.out, "train = \"README.md\"")) << shown.out << shown.err;
}

}  // namespace
}  // namespace plumb::run
