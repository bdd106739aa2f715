// The demo's recipe at toy size, as a command line, a call and a program; what tests of whole runs
// share.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/paths.h"

namespace plumb::run::testing {

// The demo's recipe with a second part: a tiny model gets no sum right, but its answers differ in
// length, so it is trained.
inline std::vector<std::string> TrainLine(const std::string& out, int64_t steps,
                                          const std::vector<std::string>& more) {
  const std::string recipe = out + ".toml", part = "kind = \"answer\"\n";
  std::string text = RealFileSystem().ReadFile(
      plumb::testing::SourcePath("configs/arithmetic_grpo.toml"), 1 << 20);
  const size_t at = text.find(part);
  PLUMB_CHECK(at != std::string::npos);
  text.insert(at + part.size(),
              "\n[[reward.parts]]\nname = \"short\"\nkind = \"length\"\ntarget_tokens = "
              "1\nmax_tokens = 12\n");
  RealFileSystem().WriteFileAtomic(recipe, text);
  std::vector<std::string> line = {"train", recipe, "--out", out, "--steps", std::to_string(steps)};
  for (const char* set :
       {"run.threads=1", "run.checkpoint_every=2", "model.layers=1", "model.hidden=32",
        "model.heads=2", "model.kv_heads=2", "model.ffn=64", "sft.steps=3", "sft.batch=8",
        "rollout.prompts_per_step=4", "rollout.samples_per_prompt=4", "rollout.max_new_tokens=12",
        "rollout.kv_budget_mb=64", "data.eval_prompts=10", "metrics.samples_every=1"}) {
    line.insert(line.end(), {"--set", set});
  }
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

inline CliOutput Train(const std::string& out, int64_t steps,
                       const std::vector<std::string>& more = {}) {
  return RunPlumb(TrainLine(out, steps, more));
}

// The program itself, because roles are started from it. Returns its exit code.
inline int TrainInProgram(const std::string& out, int64_t steps,
                          const std::vector<std::string>& more) {
  std::string command = "timeout 120 " + plumb::testing::BinaryPath("plumb");
  for (const std::string& word : TrainLine(out, steps, more)) command += " '" + word + "'";
  const int status = std::system((command + " >" + out + ".out 2>&1").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

inline std::string Read(const std::string& path) {
  return RealFileSystem().ReadFile(path, size_t{1} << 26);
}

inline std::vector<nlohmann::json> Lines(const std::string& path) {
  std::vector<nlohmann::json> out;
  std::istringstream in(Read(path));
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

// Starts the program on a train line; its output goes to OUT.out.
inline pid_t StartProgram(const std::vector<std::string>& train_line, const std::string& out) {
  const pid_t child = fork();
  if (child != 0) return child;
  std::vector<char*> arguments = {const_cast<char*>("plumb")};
  for (const std::string& word : train_line) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // Both append: of two streams with a position each, one writes over what the other said.
  if (!std::freopen((out + ".out").c_str(), "w", stdout) ||
      !std::freopen((out + ".out").c_str(), "a", stdout) ||
      !std::freopen((out + ".out").c_str(), "a", stderr))
    _exit(126);
  execv(plumb::testing::BinaryPath("plumb").c_str(), arguments.data());
  _exit(127);
}

// Both runs ended with the same weights, optimizer and metrics: no step twice, none missing.
inline void ExpectSameRun(const std::string& a, const std::string& b) {
  const auto first = nlohmann::json::parse(Read(a + "/summary.json")),
             second = nlohmann::json::parse(Read(b + "/summary.json"));
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(first[hash], second[hash]) << hash;
  const auto x = Lines(a + "/metrics.jsonl"), y = Lines(b + "/metrics.jsonl");
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (const char* name : {"step", "reward/mean", "policy/loss", "optim/grad_norm"})
      EXPECT_EQ(x[i][name], y[i][name]) << i << name;
  }
}

}  // namespace plumb::run::testing
