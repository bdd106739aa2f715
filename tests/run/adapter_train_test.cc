// plumb train with policy.adapter = "lora": GRPO and DPO on a base that stays, in one process and
// in several, with resume, and the PEFT folder that comes of it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "learner/update/checkpoint_manifest.h"
#include "run/session/model_folder.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::SourcePath;
using plumb::testing::TempFolder;
using testing::Has;
using testing::Read;
using testing::RunPlumb;

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(Read(run + "/summary.json"));
}

// The untrained model of the toy recipe.
std::string BaseModel(const TempFolder& temp) {
  const auto made =
      RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out", temp / "base", "--steps",
                "0", "--quiet", "--set", "data.eval=", "--set", "eval.bar=0"});
  EXPECT_EQ(made.code, 0) << made.err;
  return temp / "base/checkpoints/step-00000000/model";
}

std::vector<std::string> ToyLine(const std::string& base, const std::string& out, int64_t steps,
                                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> line = {
      "train",  SourcePath("configs/toy_grpo.toml"), "--out", out, "--steps", std::to_string(steps),
      "--quiet"};
  for (const std::string& set :
       {"model.path=" + base, std::string("policy.adapter=lora"), std::string("policy.rank=8"),
        std::string("policy.alpha=32"), std::string("optimizer.learning_rate=1e-2"),
        std::string("run.checkpoint_every=2"), std::string("eval.bar=0"),
        std::string("checkpoint.optimizer=always")}) {
    line.insert(line.end(), {"--set", set});
  }
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

Digest DigestIn(const std::string& folder) {
  return LoadModel(folder, {.dtype = "float32", .threads = 1}).weights->ComputeDigest();
}

learner::CheckpointState StateOf(const std::string& checkpoint) {
  return *learner::ReadManifest(Read(checkpoint + "/manifest.json"), checkpoint).state;
}

TEST(AdapterTrainTest, GrpoRaisesTheRewardAndLeavesTheBaseAsItIs) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  const Digest before = DigestIn(base);
  const auto run = RunPlumb(ToyLine(base, temp / "lora", 30, {"--set", "algorithm.kl_coef=0.01"}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto summary = Summary(temp / "lora");
  EXPECT_GT(summary["eval"]["after"]["reward"].get<double>(),
            summary["eval"]["before"]["reward"].get<double>() + 0.3);
  const std::string last = temp / "lora/checkpoints/step-00000030";
  EXPECT_EQ(StateOf(last).base_digest, before);
  EXPECT_EQ(DigestIn(base), before);
  EXPECT_FALSE(RealFileSystem().Exists(last + "/model/model.safetensors"));
  EXPECT_FALSE(RealFileSystem().Exists(temp / "lora/checkpoints/reference"));
  // What was written can be used: base and adapter together are the policy of the end.
  EXPECT_EQ(DigestIn(last + "/model"), summary["policy_digest"].get<std::string>());
  const auto generated =
      RunPlumb({"generate", last + "/model", "--prompt", "1+2=", "--max-new-tokens", "4"});
  EXPECT_EQ(generated.code, 0) << generated.err;
}

TEST(AdapterTrainTest, SeveralProcessesAndAResumeComeToTheSameBits) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  ASSERT_EQ(RunPlumb(ToyLine(base, temp / "whole", 4)).code, 0);
  ASSERT_EQ(RunPlumb(ToyLine(base, temp / "parts", 2)).code, 0);
  const auto resumed = RunPlumb(ToyLine(base, temp / "parts", 4, {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  std::string command = "timeout 120 " + plumb::testing::BinaryPath("plumb");
  for (const std::string& word : ToyLine(base, temp / "processes", 4, {"--roles", "processes"}))
    command += " '" + word + "'";
  ASSERT_EQ(std::system((command + " >" + (temp / "out") + " 2>&1").c_str()), 0)
      << Read(temp / "out");
  const auto whole = Summary(temp / "whole");
  for (const char* other : {"parts", "processes"}) {
    for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"}) {
      EXPECT_EQ(Summary(temp / other)[hash], whole[hash]) << other << " " << hash;
    }
  }
  // From another base it does not go on.
  RealFileSystem().RemoveAll(base);
  const auto other = RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out",
                               temp / "other", "--steps", "0", "--quiet", "--set",
                               "data.eval=", "--set", "eval.bar=0", "--set", "run.seed=2"});
  ASSERT_EQ(other.code, 0) << other.err;
  RealFileSystem().Rename(temp / "other/checkpoints/step-00000000/model", base);
  const auto refused = RunPlumb(ToyLine(base, temp / "parts", 6, {"--resume"}));
  EXPECT_NE(refused.code, 0);
  EXPECT_TRUE(Has(refused.err, "was trained on a base with digest")) << refused.err;
}

// What drops, has patterns and rates of its own comes to the same bits, too; and each of them
// changes what comes.
TEST(AdapterTrainTest, DropoutPatternsAndRatesComeToTheSameBits) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  const std::vector<std::string> sets = {"policy.dropout=0.3",
                                         "policy.rslora=true",
                                         "policy.rank_pattern=[\"layers.0.mlp.down_proj=3\"]",
                                         "policy.alpha_pattern=[\"(q|k)_proj=8\"]",
                                         "policy.learning_rates=[\"lora_B=4\"]",
                                         "policy.frozen=[\"layers.1.*lora_A\"]"};
  const auto line = [&](const std::string& out, int64_t steps, size_t without,
                        std::vector<std::string> more = {}) {
    for (size_t i = 0; i < sets.size(); ++i)
      if (i != without) more.insert(more.end(), {"--set", sets[i]});
    return ToyLine(base, out, steps, more);
  };
  const size_t all = sets.size();
  const auto run = RunPlumb(line(temp / "whole", 4, all));
  ASSERT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(RunPlumb(line(temp / "parts", 2, all)).code, 0);
  const auto resumed = RunPlumb(line(temp / "parts", 4, all, {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  std::string command = "timeout 120 " + plumb::testing::BinaryPath("plumb");
  for (const std::string& word : line(temp / "processes", 4, all, {"--roles", "processes"}))
    command += " '" + word + "'";
  ASSERT_EQ(std::system((command + " >" + (temp / "out") + " 2>&1").c_str()), 0)
      << Read(temp / "out");
  const auto whole = Summary(temp / "whole");
  for (const char* other : {"parts", "processes"}) {
    for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"}) {
      EXPECT_EQ(Summary(temp / other)[hash], whole[hash]) << other << " " << hash;
    }
  }
  for (size_t i = 0; i < sets.size(); ++i) {
    const std::string out = temp / ("without" + std::to_string(i));
    ASSERT_EQ(RunPlumb(line(out, 1, i)).code, 0) << sets[i];
    const std::string first = temp / "one";
    if (i == 0) {
      ASSERT_EQ(RunPlumb(line(first, 1, all)).code, 0);
    }
    EXPECT_NE(Summary(out)["weights_sha256"], Summary(first)["weights_sha256"]) << sets[i];
  }
  // The rates may change in a resume, what the checkpoint holds may not.
  const auto refused = RunPlumb(line(temp / "parts", 6, 1, {"--resume"}));
  EXPECT_NE(refused.code, 0);
  EXPECT_TRUE(Has(refused.err, "policy.rslora")) << refused.err;
  EXPECT_EQ(RunPlumb(line(temp / "parts", 6, 4, {"--resume"})).code, 0);
}

TEST(AdapterTrainTest, AnAdapterAndItsBaseBecomeOneModel) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  const auto run = RunPlumb(ToyLine(base, temp / "lora", 6, {"--set", "policy.rslora=true"}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto merged = RunPlumb({"convert", temp / "lora", temp / "merged"});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_TRUE(RealFileSystem().Exists(temp / "merged/tokenizer.json"));
  EXPECT_FALSE(RealFileSystem().Exists(temp / "merged/adapter_config.json"));
  // In float32 the same answers: before, within and after.
  const auto answers = [&](const std::string& model, const std::vector<std::string>& more = {}) {
    std::vector<std::string> line = {"generate",         model, "--prompt", "1+2=",   "--greedy",
                                     "--max-new-tokens", "8",   "--dtype",  "float32"};
    line.insert(line.end(), more.begin(), more.end());
    const auto out = RunPlumb(line);
    EXPECT_EQ(out.code, 0) << out.err;
    return out.out;
  };
  const std::string unmerged = answers(temp / "lora");
  EXPECT_EQ(answers(temp / "merged"), unmerged);
  EXPECT_EQ(answers(temp / "lora", {"--merge"}), unmerged);
  EXPECT_NE(DigestIn(temp / "merged"), DigestIn(base));
  const auto twice = RunPlumb({"convert", temp / "lora", temp / "merged"});
  EXPECT_EQ(twice.code, 2) << twice.err;
  EXPECT_TRUE(Has(twice.err, "replace it with --overwrite")) << twice.err;
  EXPECT_EQ(RunPlumb({"convert", temp / "lora", temp / "merged", "--overwrite"}).code, 0);
  const auto whole = RunPlumb({"convert", temp / "merged", temp / "again"});
  EXPECT_EQ(whole.code, 2);
  EXPECT_TRUE(Has(whole.err, "is a model folder as it is")) << whole.err;
  const auto onto_base = RunPlumb({"convert", temp / "lora", base, "--overwrite"});
  EXPECT_EQ(onto_base.code, 2);
  EXPECT_TRUE(RealFileSystem().Exists(base + "/model.safetensors"));
  EXPECT_EQ(RunPlumb({"generate", base, "--merge", "--prompt", "1"}).code, 2);
}

TEST(AdapterTrainTest, DpoStartsAtTheBaseAndLearns) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  std::string pairs;
  for (int i = 0; i < 120; ++i) {
    const std::string sum = std::to_string(i % 50 + i % 7);
    pairs += "{\"prompt\": \"" + std::to_string(i % 50) + "+" + std::to_string(i % 7) +
             "=\", \"chosen\": \"" + sum + "\", \"rejected\": \"" + sum + "0" +
             std::to_string(i % 10) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl", pairs);
  RealFileSystem().WriteFileAtomic(temp / "dpo.toml",
                                   "[run]\nthreads = 1\n[checkpoint]\noptimizer = \"always\"\n"
                                   "[model]\npath = \"" +
                                       base +
                                       "\"\n[policy]\nadapter = \"lora\"\nalpha = 32\n[data]\n"
                                       "train = \"" +
                                       (temp / "pairs.jsonl") +
                                       "\"\n[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 8\n"
                                       "heldout = 20\n[optimizer]\nlearning_rate = 1e-2\n");
  const auto line = [&](const std::string& out, int64_t steps) {
    return std::vector<std::string>{"train",   temp / "dpo.toml",     "--out",  out,
                                    "--steps", std::to_string(steps), "--quiet"};
  };
  const auto run = RunPlumb(line(temp / "whole", 30));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto summary = Summary(temp / "whole");
  EXPECT_NEAR(summary["eval"]["before"]["loss"].get<double>(), std::log(2.0), 1e-9);
  EXPECT_LT(summary["eval"]["after"]["loss"].get<double>(), 0.6);
  EXPECT_TRUE(RealFileSystem().Exists(temp / "whole/model/adapter_model.safetensors"));
  ASSERT_EQ(RunPlumb(line(temp / "parts", 12)).code, 0);
  auto again = line(temp / "parts", 30);
  again.push_back("--resume");
  const auto resumed = RunPlumb(again);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* hash : {"weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(summary[hash], Summary(temp / "parts")[hash]) << hash;
  EXPECT_EQ(summary["eval"], Summary(temp / "parts")["eval"]);
}

TEST(AdapterTrainTest, WhatDoesNotGoTogetherIsSaid) {
  const TempFolder temp;
  const auto alone = RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out", temp / "x",
                               "--set", "policy.adapter=lora"});
  EXPECT_EQ(alone.code, 2);
  EXPECT_TRUE(Has(alone.err, "model.path")) << alone.err;
  for (const auto& [set, words] :
       {std::pair("policy.rank_pattern=[\"q_proj\"]", "write \"pattern=number\""),
        {"policy.rank_pattern=[\"q_proj=1.5\"]", "a rank is a whole number"},
        {"policy.alpha_pattern=[\"q_proj=-1\"]", "an alpha is above 0"},
        {"policy.learning_rates=[\"q_proj=0\"]", "policy.frozen names what is not trained"},
        {"policy.rslora=true", "policy.rslora needs policy.adapter = \"lora\""},
        {"policy.dropout=0.1", "policy.dropout needs policy.adapter = \"lora\""}}) {
    const auto refused =
        RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out", temp / "x", "--set", set});
    EXPECT_EQ(refused.code, 2);
    EXPECT_TRUE(Has(refused.err, words)) << refused.err;
  }
  const std::string base = BaseModel(temp);
  const auto nothing =
      RunPlumb(ToyLine(base, temp / "z", 1, {"--set", "policy.frozen=[\"nope\"]"}));
  EXPECT_EQ(nothing.code, 2);
  EXPECT_TRUE(Has(nothing.err, "matches no parameter that is trained")) << nothing.err;
  const auto unknown =
      RunPlumb(ToyLine(base, temp / "y", 1, {"--set", "policy.targets=[\"query\"]"}));
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(Has(unknown.err, "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"))
      << unknown.err;
}

}  // namespace
}  // namespace plumb::run
