#include "run/commands/cli.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "common/base/file.h"
#include "common/base/program_call.h"
#include "policy_model/memory/torch_version.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::RunPlumb;

constexpr char kRecipe[] = PLUMB_SOURCE_DIR "/configs/arithmetic_grpo.toml";

TEST(CliTest, EveryErrorCodeHasItsExitCode) {
  const std::vector<std::pair<ErrorCode, int>> table = {
      {ErrorCode::kInvalidArgument, 2}, {ErrorCode::kConflict, 2},    {ErrorCode::kNotFound, 3},
      {ErrorCode::kCorruption, 4},      {ErrorCode::kIo, 5},          {ErrorCode::kNoSpace, 5},
      {ErrorCode::kDeadline, 6},        {ErrorCode::kUnavailable, 6}, {ErrorCode::kNonFinite, 8},
      {ErrorCode::kUnsupported, 9}};
  for (const auto& [code, exit] : table) EXPECT_EQ(ExitCodeOf(code), exit) << ErrorCodeName(code);
}

TEST(CliTest, UsageIsTwoAndHelpIsZero) {
  EXPECT_EQ(RunPlumb({"--help"}).code, 0);
  EXPECT_EQ(RunPlumb({}).code, 2);
  EXPECT_EQ(RunPlumb({"frobnicate"}).code, 2);
  EXPECT_EQ(RunPlumb({"train"}).code, 2);
  EXPECT_EQ(RunPlumb({"train", kRecipe, "--steps", "-3"}).code, 2);
  const std::string help = RunPlumb({"--help"}).out;
  for (const char* verb : {"train", "plan", "config", "store", "report", "board", "watch", "doctor",
                           "generate", "score", "eval", "convert"}) {
    EXPECT_TRUE(Has(help, verb)) << verb;
  }
  EXPECT_FALSE(Has(help, "One role of a run")) << "hidden";
}

TEST(CliTest, AMisspeltVerbOrOptionNamesTheNearest) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"tarin", kRecipe},
       "plumb: error: no verb 'tarin', did you mean 'train'?\n" + ProgramCall() + " --help says"},
      {{"tarin", kRecipe, "--steps", "3"}, "error: no verb 'tarin', did you mean 'train'?\n"},
      {{"data", "exprot", "x", "--rows", "prompts"},
       "plumb data: error: no verb 'exprot', did you mean 'export'?\n"},
      {{"tarin", "--help"}, "error: no verb 'tarin', did you mean 'train'?\n"},
      {{"--verison"}, "unknown option --verison, did you mean --version?"},
      {{"frobnicate"}, "plumb: error: no verb 'frobnicate'\n"},
      {{"resume", "runs/x"}, "no verb 'resume': a run goes on by `train --resume --out RUN`"},
      {{"model", "runs/x"},
       "plumb model: error: no verb 'runs/x'; a verb stands there: info, e.g. `" + ProgramCall() +
           " model info runs/x`\n"},
      {{"generate", "m", "--temp", "0"}, "unknown option --temp, did you mean --temperature?"},
      {{"generate", "m", "--top", "0"}, "unknown option --top\n"},
      {{"train", kRecipe, "--output_dir", "x"}, "unknown option --output_dir, did you mean --out?"},
      {{"train", kRecipe, "--num-train-epochs", "2"},
       "unknown option --num-train-epochs: here run.steps counts the updates of the whole run"},
      {{"train", kRecipe, "--epochs", "2"}, "unknown option --epochs: here run.steps counts"},
      {{"train", kRecipe, "--use_peft"}, "unknown option --use_peft: here it is policy.adapter"},
      {{"train", kRecipe, "--resume", "runs/x"},
       "one argument too many: 'runs/x'; a run's folder stands behind --out: --resume --out "
       "runs/x"},
      {{"config", "new", "rows.jsonl"}, "rows stand behind --data: --data rows.jsonl"},
      {{"sft"},
       "no verb 'sft': it is `train RECIPE` with algorithm.name = \"sft\", e.g. "
       "configs/toy_sft.toml\n"},
      {{"export"},
       "no verb 'export': rows of a store are written by `data export`, a model in another form by "
       "`convert`\n"},
      {{"generate", "M", "hi"},
       "one argument too many: 'hi'; a prompt stands behind --prompt: --prompt 'hi'\n"},
      {{}, "plumb: error: a verb is missing: train plan data config"},
      {{"config", "shwo", kRecipe}, "plumb config: error: no verb 'shwo', did you mean 'show'?"},
      {{"generate", "x", "--prompt", "y", "--max-tokens", "4"},
       "plumb generate: error: unknown option --max-tokens, did you mean --max-new-tokens?"},
      {{"train", kRecipe, "--step=3"}, "unknown option --step, did you mean --steps?"},
      {{"train", kRecipe, "other.toml"}, "plumb train: error: one argument too many: 'other.toml'"},
      {{"train", kRecipe, "--learning_rate", "1e-5"},
       "; an option of the recipe is given by --set optimizer.learning_rate=VALUE or "},
      {{"train", kRecipe, "--lr", "3"},
       "unknown option --lr; an option of the recipe is given by --set optimizer.learning_rate="},
      {{"train", kRecipe, "--nothing_like_it", "1"},
       "; an option of the recipe is given by --set SECTION.nothing_like_it=VALUE"},
      {{"train", kRecipe, "rollout.n=4"},
       "'rollout.n=4'; an option of the recipe stands behind --set: --set rollout.n=4"},
      {{"data", "export"},
       "plumb data export: error: out is missing (file, there as a whole or not at all), e.g. `" +
           ProgramCall() + " data export rows.jsonl --store runs/demo/store`"},
      {{"data", "import", "x.jsonl"},
       "--store is missing (folder of the store), e.g. `" + ProgramCall() +
           " data import prompts.jsonl --store mystore`"},
      {{"generate"}, " generate runs/demo --prompt \"12+34=\"`"},
      {{"train"}, "plumb: error: a recipe is missing"}};
  for (const auto& [line, piece] : cases) {
    const CliOutput output = RunPlumb(line);
    EXPECT_EQ(output.code, 2) << piece;
    EXPECT_TRUE(Has(output.err, piece)) << output.err << "\nmisses " << piece;
    EXPECT_EQ(output.out, "");
  }
}

TEST(CliTest, ErrorsGoToStandardErrorWithTheirPlace) {
  const TempFolder temp;
  const CliOutput missing = RunPlumb({"train", temp / "none.toml"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(Has(missing.err, temp / "none.toml")) << missing.err;
  EXPECT_EQ(missing.out, "");
  EXPECT_EQ(missing.err.find("none.toml"), missing.err.rfind("none.toml"))
      << "said once: " << missing.err;

  const CliOutput typo =
      RunPlumb({"train", kRecipe, "--set", "optimizer.learning_rat=1", "--out", temp / "run"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_TRUE(Has(typo.err, "learning_rate")) << typo.err;
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run"))
      << "nothing is made before the recipe is right";

  EXPECT_EQ(RunPlumb({"report", temp.path()}).code, 3);
  EXPECT_EQ(RunPlumb({"generate", temp.path(), "--prompt", "x"}).code, 3);
  EXPECT_EQ(RunPlumb({"store", "inspect", temp / "none"}).code, 3);
}

// config_command
TEST(CliTest, ConfigShowExplainsAndResolves) {
  const CliOutput shown = RunPlumb({"config", "show", kRecipe, "--set", "run.steps=5"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(Has(shown.out, "steps"));
  const TempFolder temp;
  const CliOutput toml = RunPlumb({"config", "show", kRecipe, "--set", "run.steps=5", "--toml"});
  ASSERT_EQ(toml.code, 0);
  RealFileSystem().WriteFileAtomic(temp / "again.toml", toml.out);
  EXPECT_EQ(RunPlumb({"config", "show", temp / "again.toml", "--toml"}).out, toml.out)
      << "resolving is idempotent";
}

// A command that is proposed runs when it is copied.
TEST(CliTest, ErrorsProposeTheProgramAsItIsCalled) {
  const TempFolder temp;
  const CliOutput output = RunPlumb({"train", "--steps", "3"});
  EXPECT_TRUE(Has(output.err, "`" + ProgramCall() + " train --resume --out RUN`")) << output.err;
  EXPECT_FALSE(Has(output.err, "`plumb ")) << output.err;
}

// doctor_command
TEST(CliTest, DoctorFindsThisMachineAble) {
  const CliOutput output = RunPlumb({"doctor", "--json"});
  EXPECT_EQ(output.code, 0) << output.out;
  const auto json = nlohmann::json::parse(output.out);
  EXPECT_TRUE(json["able"].get<bool>());
  std::map<std::string, nlohmann::json> topics;
  for (const auto& f : json["findings"]) topics[f["topic"].get<std::string>()] = f;
  for (const char* topic :
       {"processor", "threads", "memory", "disk", "LibTorch", "GPU", "sandbox", "python3"}) {
    ASSERT_TRUE(topics.count(topic)) << topic;
    EXPECT_NE(topics[topic]["text"].get<std::string>(), "");
    // What is not as it should be comes with what to do.
    if (topics[topic]["grade"] != "ok") {
      EXPECT_NE(topics[topic]["remedy"].get<std::string>(), "") << topic;
    }
  }
  if (topics["sandbox"]["grade"] == "ok") {
    EXPECT_TRUE(Has(topics["sandbox"]["text"].get<std::string>(), "libseccomp"));
  }
  const auto torch = topics["LibTorch"]["text"].get<std::string>();
  EXPECT_TRUE(torch.starts_with(policy_model::TorchVersion() + " at /")) << torch;
  EXPECT_TRUE(Has(RunPlumb({"--version"}).out, "LibTorch   " + torch)) << "both say the same";
  EXPECT_TRUE(Has(RunPlumb({"doctor"}).out, "Able to run."));
}

TEST(CliTest, HelpAndVersionAsVerbs) {
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{}, {"train"}, {"data", "import"}}) {
    std::vector<std::string> help = verb, option = verb;
    help.insert(help.begin(), "help");
    option.push_back("--help");
    const CliOutput said = RunPlumb(help);
    EXPECT_EQ(said.code, 0) << said.err;
    EXPECT_EQ(said.out, RunPlumb(option).out);
  }
  EXPECT_EQ(RunPlumb({"help", "frobnicate"}).code, 2);
  const CliOutput version = RunPlumb({"version"});
  EXPECT_EQ(version.code, 2);
  EXPECT_TRUE(Has(version.err, "no verb 'version': it is ") && Has(version.err, " --version"))
      << version.err;
  EXPECT_TRUE(Has(RunPlumb({"--help"}).out, "11 of a learner of several ranks"));
}

TEST(CliTest, ResumeAndOverwriteContradictEachOther) {
  const CliOutput both = RunPlumb({"train", kRecipe, "--resume", "--overwrite"});
  EXPECT_EQ(both.code, 2);
  EXPECT_TRUE(Has(both.err, "--resume goes on with the run that --overwrite replaces")) << both.err;
}

TEST(CliTest, WhatAProcessorLacksIsNamed) {
  EXPECT_EQ(WordsMissing("avx2 fma", "fpu fma sse avx2"), "");
  EXPECT_EQ(WordsMissing("avx2 avx512f fma", "fpu avx2 avx512fp16"), " avx512f fma");
  EXPECT_NO_THROW(CheckProcessor()) << "these tests run on the machine they were built on";
}

TEST(CliTest, TheVersionSaysWhatWasBuiltFromWhatAndForWhat) {
  const CliOutput output = RunPlumb({"--version"});
  EXPECT_EQ(output.code, 0) << output.err;
  EXPECT_TRUE(output.out.starts_with("plumb 0.")) << output.out;
  std::map<std::string, std::string> said;
  std::istringstream lines(output.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > 11)
      said[line.substr(0, line.find_last_not_of(' ', 10) + 1)] = line.substr(11);
  }
  for (const char* what : {"commit", "build", "built for", "processor", "CUDA", "LibTorch"}) {
    EXPECT_NE(said[what], "") << what << " is missing in\n" << output.out;
  }
  EXPECT_TRUE(Has(said["build"], "GCC") || Has(said["build"], "clang")) << output.out;
  EXPECT_TRUE(Has(said["LibTorch"], "2.")) << output.out;
  const bool hash =
      said["commit"].size() >= 12 && said["commit"].find_first_not_of("0123456789abcdef") >= 12;
  EXPECT_TRUE(hash || said["commit"] == "unknown") << output.out;
}

}  // namespace
}  // namespace plumb::run
