// What a run shows while it goes on (a terminal's line, a scrape), and what one that cannot start
// leaves behind: nothing.
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "common/base/metrics/metrics.h"
#include "tests/run/toy_run.h"
#include "tests/testing/http_get.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::HttpGet;
using plumb::testing::TempFolder;
using testing::Has;
using testing::Lines;

int FreePort() { return MakePrometheusSink(0)->port(); }

std::vector<std::string> PortLine(int port) {
  return {"--set", "metrics.prometheus_port=" + std::to_string(port)};
}

// The number behind `name` in a scrape; -1 without one.
double Scraped(const std::string& reply, const std::string& name) {
  const size_t at = reply.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::strtod(reply.c_str() + at + name.size() + 2, nullptr);
}

TEST(TrainWatchTest, PrometheusScrapesARunThatGoesOn) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const int port = FreePort();
  std::vector<std::string> more = PortLine(port);
  more.insert(more.end(), {"--set", "run.checkpoint_every=0"});
  const pid_t child = testing::StartProgram(testing::TrainLine(run, 600, more), run);
  const std::string labels = "{role=\"learner\",run=\"run\"}";
  double first = -1, reward = -1, later = -1;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(100);
  while (later <= first && std::chrono::steady_clock::now() < until &&
         ::waitpid(child, nullptr, WNOHANG) == 0) {
    const std::string reply = HttpGet(port);
    const double step = Scraped(reply, "plumb_step" + labels);
    if (first < 0) {
      first = later = step;
      reward = Scraped(reply, "plumb_reward_mean" + labels);
    }
    later = step;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_GE(first, 0) << testing::Read(run + ".out");
  EXPECT_GT(later, first) << "a scrape later shows a later step";
  EXPECT_GE(reward, 0);
  EXPECT_LE(reward, 1.5);
  ::kill(child, SIGTERM);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(HttpGet(port), "") << "the port is free again";
}

TEST(TrainWatchTest, ATakenPortIsSaidAtTheStartAndLeavesNoRun) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const auto taken = MakePrometheusSink(0);
  const auto output = testing::Train(run, 2, PortLine(taken->port()));
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, std::to_string(taken->port()))) << output.err;
  EXPECT_FALSE(Has(output.out, "warm start 3")) << "after the work is too late: " << output.out;
  EXPECT_FALSE(std::filesystem::exists(run));
}

TEST(TrainWatchTest, AMisspeltPartLeavesNoRunSoTheCorrectedRecipeStarts) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const auto wrong = testing::Train(run, 1, {"--set", "reward.parts.1.kind=lenght"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(Has(wrong.err, "did you mean 'length'?")) << wrong.err;
  EXPECT_EQ(wrong.err.find("lenght"), wrong.err.rfind("lenght")) << "said once: " << wrong.err;
  EXPECT_FALSE(std::filesystem::exists(run));
  EXPECT_EQ(testing::Train(run, 1).code, 0);
  // A run that has begun is kept, whatever happens to it.
  EXPECT_EQ(testing::Train(run, 3, {"--resume", "--set", "run.seed=9"}).code, 2);
  EXPECT_TRUE(std::filesystem::exists(run + "/summary.json"));
}

TEST(TrainWatchTest, ARunWhoseEveryAnswerGoesUnscoredStops) {
  const TempFolder temp;
  const std::string run = temp / "run", program = temp / "refuses.sh";
  RealFileSystem().WriteFileAtomic(
      program,
      "#!/bin/sh\nwhile IFS= read -r line; do id=${line#'{\"id\":'}; printf "
      "'{\"id\":%s,\"error\":\"no\"}\\n' \"${id%%,*}\"; done\n");
  const int code = testing::TrainInProgram(
      run, 20,
      {"--set", "reward.parts.1.kind=program", "--set", "reward.parts.1.path=sh", "--set",
       "reward.parts.1.args=[\"" + program + "\"]", "--set", "run.checkpoint_every=0", "--set",
       "reward.allow_unsandboxed=true"});
  const std::string said = testing::Read(run + ".out");
  EXPECT_EQ(code, 10) << said;
  EXPECT_TRUE(Has(said, "step 2: not one answer of the last 3 steps") &&
              Has(said, "reward 'short': reported: no"))
      << said;
  const auto lines = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u) << "steps that trained nothing, said as they went by";
  for (const auto& line : lines)
    EXPECT_TRUE(line["reward/unscored"] == 16 && !line.contains("reward/mean")) << line;
}

// One answer of each group fails: the groups are dropped, and every place that counts says so.
TEST(TrainWatchTest, WhatFailsInARewardIsCountedAndSaid) {
  const TempFolder temp;
  const std::string run = temp / "run", program = temp / "abstains.sh";
  RealFileSystem().WriteFileAtomic(
      program,
      "#!/bin/sh\nn=0\nwhile IFS= read -r line; do id=${line#'{\"id\":'}; n=$((n + 1)); if [ $((n "
      "% 4)) = 1 ]; then "
      "printf '{\"id\":%s,\"error\":\"not mine\"}\\n' \"${id%%,*}\"; else printf "
      "'{\"id\":%s,\"score\":1}\\n' \"${id%%,*}\"; fi; done\n");
  const int code = testing::TrainInProgram(
      run, 2,
      {"--set", "reward.parts.1.kind=program", "--set", "reward.parts.1.path=sh", "--set",
       "reward.parts.1.args=[\"" + program + "\"]", "--set", "reward.retries=0", "--set",
       "run.checkpoint_every=0", "--set", "data.eval=", "--set", "sft.steps=0", "--set",
       "reward.allow_unsandboxed=true"});
  const std::string said = testing::Read(run + ".out");
  // A run that went through without one score that counts is no success either.
  ASSERT_EQ(code, 10) << said;
  EXPECT_TRUE(Has(said, "not one answer of the run's 2 steps got a score that counts")) << said;
  EXPECT_FALSE(std::filesystem::exists(run + "/model")) << "nothing was trained";
  EXPECT_TRUE(std::filesystem::is_empty(run + "/checkpoints"));
  EXPECT_FALSE(Has(said, "reward 0.000")) << said;
  EXPECT_TRUE(Has(said, "step 2/2  reward -  length ")) << said;
  EXPECT_TRUE(Has(said,
                  "dropped: 8 groups (8 unscored; answers of groups that trained nothing: 32); "
                  "answers without a score: 8"))
      << said;
  const auto summary = nlohmann::json::parse(testing::Read(run + "/summary.json"));
  EXPECT_EQ(summary["dropped"], nlohmann::json::parse(R"({"trajectories":32,"unscored":8})"));
  EXPECT_EQ(summary["unscored"], nlohmann::json::parse(R"({"answers":8,"never_generated":0})"));
  for (const auto& line : Lines(run + "/metrics.jsonl")) {
    EXPECT_EQ(line["reward/unscored"], 16) << "no answer of the step has a score that counts";
    EXPECT_EQ(line["reward/dropped_groups"], 4);
    EXPECT_EQ(line["reward/zero_std_groups"], 0);
    EXPECT_FALSE(line.contains("reward/mean") || line.contains("reward/std")) << line;
    EXPECT_GT(line["response_length/mean"], 0);
  }
  EXPECT_TRUE(Has(testing::Read(run + "/logs/train.log"), "reported: not mine"));
  const auto samples = Lines(run + "/samples.jsonl");
  ASSERT_FALSE(samples.empty());
  EXPECT_TRUE(samples[0]["reward"].is_null() && Has(samples[0]["unscored_reason"], "not mine"))
      << samples[0];
}

// Where the data says of no prompt what is right, the samples say that there is nothing, not that
// it is empty.
TEST(TrainWatchTest, PromptsWithoutAGroundTruthHaveNoneInTheSamples) {
  const TempFolder temp;
  const std::string run = temp / "run", rows = temp / "rows.jsonl";
  RealFileSystem().WriteFileAtomic(rows,
                                   "{\"prompt\":\"1+2=\"}\n{\"prompt\":\"2+2=\"}\n{\"prompt\":\"3+"
                                   "1=\"}\n{\"prompt\":\"4+4=\"}\n");
  const int code = testing::TrainInProgram(
      run, 1,
      {"--set", "data.train=" + rows, "--set", "data.eval=", "--set", "data.eval_prompts=0",
       "--set", "sft.steps=0", "--set", "reward.parts.0.kind=length", "--set",
       "reward.parts.0.target_tokens=1", "--set", "reward.parts.0.max_tokens=12"});
  ASSERT_EQ(code, 0) << testing::Read(run + ".out");
  EXPECT_FALSE(Has(testing::Read(run + ".out"), "ground truth \"\""))
      << testing::Read(run + ".out");
  const auto samples = Lines(run + "/samples.jsonl");
  ASSERT_FALSE(samples.empty());
  for (const auto& sample : samples) EXPECT_TRUE(sample.at("ground_truth").is_null()) << sample;
}

// Prompts that leave no room for an answer are known before anything is generated: refused, with
// both numbers.
TEST(TrainWatchTest, PromptsWithoutRoomForAnAnswerAreRefusedAtOnce) {
  const TempFolder temp;
  const auto run = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"--set", "sft.steps=0"});
    const int code = testing::TrainInProgram(temp / name, 1, more);
    return std::pair(code, testing::Read(temp / (name + ".out")));
  };
  for (const std::string roles : {"local", "processes"}) {
    const auto [code, said] = run(roles, {"--set", "rollout.max_new_tokens=60", "--roles", roles});
    EXPECT_EQ(code, 2) << said;
    EXPECT_TRUE(Has(
        said, "the model's 64 positions leave 4 for a prompt beside rollout.max_new_tokens = 60"))
        << said;
  }
  EXPECT_FALSE(std::filesystem::exists(temp / "local"));
  const auto [code, said] = run("none", {"--set", "rollout.max_new_tokens=64"});
  EXPECT_EQ(code, 2);
  EXPECT_TRUE(Has(
      said, "rollout.max_new_tokens = 64 leaves no token for a prompt: model.max_positions is 64"))
      << said;
  // Cut as data.overlong says, they are answered.
  const auto [done, cut] =
      run("cut", {"--set", "rollout.max_new_tokens=60", "--set", "data.overlong=left"});
  EXPECT_EQ(done, 0) << cut;
  EXPECT_TRUE(Has(cut, " cut: the model's 64 positions leave 4")) << cut;
}

// A policy that gives no logits any more: its answers are no answers, and the cause is named.
TEST(TrainWatchTest, SpoiltWeightsEndTheRunAndAreNamed) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const int code = testing::TrainInProgram(
      run, 9,
      {"--set", "optimizer.learning_rate=1e18", "--set", "optimizer.grad_clip=0", "--set",
       "eval.bar=0.9", "--set", "sft.steps=0", "--set", "optimizer.lr_schedule=constant"});
  const std::string said = testing::Read(run + ".out");
  EXPECT_EQ(code, 8) << said;
  EXPECT_TRUE(Has(said, "not finite") && Has(said, "optimizer.learning_rate")) << said;
  EXPECT_FALSE(Has(said, "plumb reward test")) << said;
  EXPECT_TRUE(Has(testing::Read(run + "/logs/train.log"), "not finite"));
  EXPECT_TRUE(std::filesystem::is_empty(run + "/checkpoints"))
      << "the step that spoilt them is no good one, and there is none before it";
}

TEST(TrainWatchTest, OnATerminalOneLineIsRedrawn) {
  const TempFolder temp;
  const std::string run = temp / "run";
  std::vector<std::string> line = testing::TrainLine(run, 12, {});
  line.insert(line.begin(), plumb::testing::BinaryPath("plumb"));
  winsize size{.ws_row = 24, .ws_col = 110, .ws_xpixel = 0, .ws_ypixel = 0};
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    std::vector<char*> arguments;
    for (std::string& word : line) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  std::string shown;
  char chunk[4096];
  for (ssize_t n; (n = ::read(terminal, chunk, sizeof chunk)) > 0;)
    shown.append(chunk, static_cast<size_t>(n));
  ::close(terminal);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << shown;
  // Its sizes are cut between words, none wider than the terminal.
  EXPECT_TRUE(Has(shown, "trajectories;\r\n  1 epoch ")) << shown;
  const size_t bar = shown.rfind("[====");
  ASSERT_NE(bar, std::string::npos) << shown;
  const std::string last = shown.substr(bar, shown.find_first_of("\r\n", bar) - bar);
  for (const char* piece : {"] step 12/12  reward ", "  length ", " tok/s  0:00 left"}) {
    EXPECT_TRUE(Has(last, piece)) << last;
  }
  EXPECT_FALSE(Has(shown, "  kl ")) << "without a reference there is none";
  EXPECT_TRUE(Has(shown, "saving step 12 (")) << shown;
  EXPECT_LT(last.size(), 110u) << "never wider than the terminal";
}

}  // namespace
}  // namespace plumb::run
