// Runs whose answers are conversations: configs/calculator_agent.toml at toy size, and two steps of
// SmolLM2.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::ExpectSameRun;
using testing::Has;
using testing::Lines;
using testing::Read;

const std::vector<std::string> kCalculator = {
    "--set", "environment.kind=calculator", "--set", "environment.reply_tokens=4", "--set",
    "environment.max_turns=3", "--set", "rollout.stop=[\"=\", \"1\", \"+\"]", "--set",
    "rollout.max_new_tokens=20",
    // steps that do not know how many follow, in checkpoints that are gone on from bit for bit
    "--set", "optimizer.lr_schedule=constant", "--set", "optimizer.warmup_fraction=0", "--set",
    "checkpoint.optimizer=always", "--set", "metrics.samples=all"};

std::vector<std::string> With(std::vector<std::string> more) {
  more.insert(more.begin(), kCalculator.begin(), kCalculator.end());
  return more;
}

TEST(EnvironmentTrain, LocalAndProcessesAreTheSameRunAndAResumeGoesOn) {
  const plumb::testing::TempFolder temp;
  const std::string local = temp.path() + "/local", processes = temp.path() + "/processes",
                    resumed = temp.path() + "/resumed";
  ASSERT_EQ(testing::TrainInProgram(local, 4, kCalculator), 0) << Read(local + ".out");
  ASSERT_EQ(testing::TrainInProgram(processes, 4, With({"--set", "run.roles=processes"})), 0)
      << Read(processes + ".out");
  ExpectSameRun(local, processes);
  ASSERT_EQ(testing::TrainInProgram(resumed, 2, kCalculator), 0) << Read(resumed + ".out");
  ASSERT_EQ(testing::TrainInProgram(resumed, 4, With({"--resume"})), 0) << Read(resumed + ".out");
  ExpectSameRun(local, resumed);
  double turns = 0, calls = 0;
  for (const auto& line : Lines(local + "/metrics.jsonl")) {
    turns = std::max(turns, line.at("turns/mean").get<double>());
    calls = std::max(calls, line.at("tools/call_frequency").get<double>());
    EXPECT_TRUE(line.contains("tools/failure_frequency"));
    EXPECT_GT(line.at("environment/episodes").get<double>(), 0);
    EXPECT_LE(line.at("response_length/max").get<double>(), 20);
  }
  EXPECT_GT(turns, 1);
  EXPECT_GT(calls, 0);
  bool conversation = false;
  for (const auto& sample : Lines(local + "/samples.jsonl")) {
    std::string whole;
    for (const auto& turn : sample.at("turns")) {
      conversation = conversation || turn.at("by") == "environment";
      whole += turn.at("text").get<std::string>();
    }
    EXPECT_EQ(whole, sample.at("completion").get<std::string>());
  }
  EXPECT_TRUE(conversation);
}

TEST(EnvironmentTrain, WhatIsNotThereIsSaidBeforeARun) {
  const plumb::testing::TempFolder temp;
  const auto out =
      testing::Train(temp.path() + "/run", 1,
                     {"--set", "environment.kind=program", "--set", "environment.path=/bin/cat",
                      "--set", "environment.reply_tokens=4"});
  EXPECT_NE(out.code, 0);
  EXPECT_TRUE(Has(out.err, "/bin/cat")) << out.err;
  EXPECT_TRUE(Has(out.err, "docs/environments.md")) << out.err;
  EXPECT_FALSE(Has(out.out + out.err, "warm start")) << out.out << out.err;
}

TEST(EnvironmentTrain, RepliesThatLeaveNoRoomAreRefused) {
  const plumb::testing::TempFolder temp;
  const auto out =
      testing::Train(temp.path() + "/run", 1, {"--set", "environment.kind=calculator"});
  EXPECT_NE(out.code, 0);
  EXPECT_TRUE(Has((out.out + out.err), "environment.reply_tokens")) << (out.out + out.err);
}

TEST(EnvironmentTrain, SmolLm2HasConversationsOfSeveralTurns) {
  const std::string model = plumb::testing::SourcePath("models/SmolLM2-135M-Instruct");
  if (!std::filesystem::exists(model + "/model.safetensors"))
    GTEST_SKIP() << "NO MODEL: run `make model`; no conversation of SmolLM2 was trained";
  const plumb::testing::TempFolder temp;
  const std::string rows = temp.path() + "/rows.jsonl", recipe = temp.path() + "/recipe.toml",
                    out = temp.path() + "/run";
  std::string text;
  for (int i = 0; i < 4; ++i) {
    const std::string a = std::to_string(1203 + i * 17), b = std::to_string(4411 + i * 29);
    text += R"({"messages": [{"role": "user", "content": "Write the sum )" + a + " + " + b +
            R"( with an equals sign and nothing behind it."}], "answer": ")" +
            std::to_string(1203 + i * 17 + 4411 + i * 29) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(rows, text);
  RealFileSystem().WriteFileAtomic(
      recipe, "[run]\nsteps = 2\nthreads = 2\ncheckpoint_every = 0\n[model]\npath = \"" + model +
                  "\"\n[data]\ntrain = \"" + rows +
                  "\"\nmax_prompt_tokens = 96\n[data.map]\nground_truth = \"answer\"\n"
                  "[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 2\nmax_new_tokens = 72\n"
                  "stop = [\"=\", \" is\", \".\"]\nkv_budget_mb = 256\n"
                  "[environment]\nkind = \"calculator\"\nmax_turns = 3\nreply_tokens = 16\n"
                  "[[reward.parts]]\nkind = \"length\"\ntarget_tokens = 8\nmax_tokens = 64\n"
                  "[metrics]\nsamples_every = 1\nsamples = \"all\"\n");
  const auto ran = testing::RunPlumb({"train", recipe, "--out", out});
  ASSERT_EQ(ran.code, 0) << (ran.out + ran.err);
  const auto lines = Lines(out + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  // float32 of one machine: what was drawn is what is learned from, replies between turns included.
  for (const auto& line : lines)
    EXPECT_LT(line.at("sampling/logprob_diff_mean").get<double>(), 0.05);
  bool several = false;
  for (const auto& sample : Lines(out + "/samples.jsonl")) {
    std::string whole;
    for (const auto& turn : sample.at("turns")) whole += turn.at("text").get<std::string>();
    several = several || Has(whole, "<|im_start|>assistant\n");
  }
  EXPECT_TRUE(several) << Read(out + "/samples.jsonl");
}

}  // namespace
}  // namespace plumb::run
