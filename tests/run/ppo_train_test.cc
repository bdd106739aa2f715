// plumb train with PPO on a tiny recipe: critic, controller and reward moments survive resume and
// killed roles bit for bit.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::RunPlumb;

const char* const kHashes[] = {"policy_digest", "weights_sha256", "optimizer_sha256",
                               "critic_sha256"};

// configs/arithmetic_ppo.toml at toy size, with everything that has state turned on.
std::vector<std::string> TrainLine(const std::string& out, int64_t steps,
                                   const std::vector<std::string>& more) {
  const std::string recipe = out + ".toml", part = "kind = \"answer\"\n";
  std::string text =
      RealFileSystem().ReadFile(PLUMB_SOURCE_DIR "/configs/arithmetic_ppo.toml", 1 << 20);
  const size_t at = text.find(part);
  PLUMB_CHECK(at != std::string::npos);
  text.insert(at + part.size(),
              "\n[[reward.parts]]\nname = \"short\"\nkind = \"length\"\ntarget_tokens = "
              "1\nmax_tokens = 12\n");
  RealFileSystem().WriteFileAtomic(recipe, text);
  std::vector<std::string> line = {"train", recipe, "--out", out, "--steps", std::to_string(steps)};
  for (const char* set : {"run.threads=1",
                          "run.checkpoint_every=3",
                          "model.layers=1",
                          "model.hidden=32",
                          "model.heads=2",
                          "model.kv_heads=2",
                          "model.ffn=64",
                          "sft.steps=3",
                          "sft.batch=8",
                          "rollout.prompts_per_step=4",
                          "rollout.samples_per_prompt=2",
                          "rollout.max_new_tokens=12",
                          "rollout.kv_budget_mb=64",
                          "data.eval_prompts=10",
                          "optimizer.lr_schedule=constant",
                          "optimizer.warmup_fraction=0",
                          "algorithm.epochs=2",
                          "algorithm.minibatches=2",
                          "algorithm.kl_coef=0.1",
                          "algorithm.kl_controller=adaptive",
                          "algorithm.kl_target=0.1",
                          "algorithm.kl_horizon=100",
                          "algorithm.reward_normalize=scale",
                          "algorithm.reward_clip=10"}) {
    line.insert(line.end(), {"--set", set});
  }
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

CliOutput Train(const std::string& out, int64_t steps, const std::vector<std::string>& more = {}) {
  return RunPlumb(TrainLine(out, steps, more));
}

std::string Read(const std::string& path) {
  return RealFileSystem().ReadFile(path, size_t{1} << 26);
}

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::vector<nlohmann::json> out;
  std::istringstream in(Read(path));
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

void ExpectSameRun(const std::string& a, const std::string& b) {
  const auto first = nlohmann::json::parse(Read(a + "/summary.json")),
             second = nlohmann::json::parse(Read(b + "/summary.json"));
  for (const char* hash : kHashes) EXPECT_EQ(first.at(hash), second.at(hash)) << hash;
  const auto x = Lines(a + "/metrics.jsonl"), y = Lines(b + "/metrics.jsonl");
  ASSERT_EQ(x.size(), y.size()) << "no step twice, none missing";
  for (size_t i = 0; i < x.size(); ++i) {
    for (const char* name :
         {"step", "reward/mean", "policy/loss", "value/loss", "value/explained_variance",
          "value/clip_fraction", "objective/kl", "objective/kl_coef", "reward/running_std"}) {
      EXPECT_EQ(x[i].at(name), y[i].at(name)) << i << " " << name;
    }
  }
}

TEST(PpoTrainTest, ResumedEqualsUnbrokenBitForBit) {
  for (const std::string mode : {"own", "shared"}) {
    const TempFolder temp;
    const std::vector<std::string> set = {"--set", "critic.mode=" + mode, "--set",
                                          "checkpoint.optimizer=always"};
    std::vector<std::string> resume = set;
    resume.push_back("--resume");
    ASSERT_EQ(Train(temp / "whole", 6, set).code, 0);
    ASSERT_EQ(Train(temp / "parts", 2, set).code, 0);
    const CliOutput again = Train(temp / "parts", 6, resume);
    ASSERT_EQ(again.code, 0) << again.err;
    ExpectSameRun(temp / "whole", temp / "parts");
    const auto metrics = Lines(temp / "whole/metrics.jsonl");
    EXPECT_EQ(metrics[0]["objective/kl_coef"], 0.1);
    EXPECT_NE(metrics[5]["objective/kl_coef"], 0.1);
    EXPECT_EQ(metrics[5]["policy/updates"], 4);
    EXPECT_LT(metrics[5]["sampling/logprob_diff_max"].get<double>(), 1e-4);
  }
}

TEST(PpoTrainTest, KilledRolesChangeNothing) {
  const TempFolder temp;
  const std::string run = temp / "killed";
  constexpr int64_t kSteps = 36;
  ASSERT_EQ(Train(temp / "local", kSteps).code, 0);
  int code = -1;
  std::thread program([&] {
    std::string command = "timeout 120 " PLUMB_BINARY_DIR "/plumb";
    for (const std::string& word : TrainLine(run, kSteps, {"--roles", "processes"}))
      command += " '" + word + "'";
    const int status = std::system((command + " >" + run + ".out 2>&1").c_str());
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const std::vector<std::string> roles = {"learner", "actor-0", "reward-0", "replay"};
  size_t kills = 0;
  while (kills < roles.size() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!RealFileSystem().Exists(run + "/metrics.jsonl") ||
        !RealFileSystem().Exists(run + "/pids.json"))
      continue;
    const std::string metrics = Read(run + "/metrics.jsonl");
    if (std::count(metrics.begin(), metrics.end(), '\n') < static_cast<int64_t>(4 + 7 * kills))
      continue;
    const auto pid = nlohmann::json::parse(Read(run + "/pids.json"))[roles[kills]].get<pid_t>();
    if (pid <= 1) continue;  // just being started again
    ::kill(pid, SIGKILL);
    ++kills;
  }
  program.join();
  ASSERT_EQ(code, 0) << Read(run + ".out");
  EXPECT_EQ(kills, roles.size());
  EXPECT_TRUE(Has(Read(run + ".out"), "roles started again: 4")) << Read(run + ".out");
  ExpectSameRun(temp / "local", run);
}

// The toy recipe reaches its bar with either critic; a bar that is not reached is an exit code, not
// a remark.
TEST(PpoTrainTest, TheToyRecipeReachesItsBar) {
  const TempFolder temp;
  const std::string recipe = PLUMB_SOURCE_DIR "/configs/toy_ppo.toml";
  for (const std::string mode : {"own", "shared"}) {
    const CliOutput output =
        RunPlumb({"train", recipe, "--out", temp / mode, "--set", "critic.mode=" + mode});
    EXPECT_EQ(output.code, 0) << output.err;
    const auto summary = nlohmann::json::parse(Read(temp / mode + "/summary.json"));
    EXPECT_LT(summary["eval"]["before"]["accuracy"].get<double>(), 0.5);
    EXPECT_GE(summary["eval"]["after"]["accuracy"].get<double>(), 0.9);
  }
  const CliOutput low =
      RunPlumb({"train", recipe, "--out", temp / "low", "--steps", "1", "--set", "eval.bar=0.95"});
  EXPECT_EQ(low.code, 7);
  EXPECT_TRUE(Has(low.err, "is below the recipe's eval.bar = 0.950")) << low.err;
}

TEST(PpoTrainTest, AdaptiveKlWithoutATargetIsSaidAtTheStart) {
  const TempFolder temp;
  const CliOutput output = Train(temp / "run", 1, {"--set", "algorithm.kl_target=0"});
  EXPECT_EQ(output.code, 2) << output.err;
  EXPECT_TRUE(Has(output.err, "needs algorithm.kl_target > 0")) << output.err;
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run/metrics.jsonl"));
}

}  // namespace
}  // namespace plumb::run
