// A person at the terminal: Ctrl-C once and twice, in every phase and in both ways to run, and a
// run folder that is in use.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/weights.h"
#include "run/board/run_facts.h"
#include "run/session/interrupt.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

int64_t StepsDone(const std::string& run) {
  if (!RealFileSystem().Exists(run + "/metrics.jsonl")) return 0;
  const std::string metrics = Read(run + "/metrics.jsonl");
  return std::count(metrics.begin(), metrics.end(), '\n');
}

// As board and watch show it.
RunState StateOf(const std::string& run) {
  RunFacts facts(run);
  facts.Refresh(StepsDone(run) - 1);
  return facts.state();
}

// Until `condition` holds, at most a minute, and as long as the child lives.
template <class Condition>
bool Soon(pid_t child, const Condition& condition) {
  const auto deadline = SteadyClock::now() + std::chrono::seconds(60);
  while (!condition()) {
    siginfo_t ended{};
    if (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        ended.si_pid == child) {
      return condition();
    }
    if (SteadyClock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// Exit code of a child that ends within `seconds`, -1 for one that was killed by a signal, -2 for
// one that did not end.
int CodeWithin(pid_t child, double seconds) {
  const auto deadline = SteadyClock::now() + std::chrono::duration<double>(seconds);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) != child) {
    if (SteadyClock::now() > deadline) {
      ::kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -2;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Whether the program has begun to catch SIGINT: before that, while its libraries are loaded, a
// signal just ends it. Until its exec the child is this test, with what earlier runs in it catch.
bool Catches(pid_t program) {
  std::error_code ignored;
  const auto exe =
      std::filesystem::read_symlink("/proc/" + std::to_string(program) + "/exe", ignored);
  if (exe.filename() != "plumb") return false;
  const std::string status = Read("/proc/" + std::to_string(program) + "/status");
  const size_t at = status.find("SigCgt:");
  if (at == std::string::npos) return false;
  return (std::stoull(status.substr(at + 7), nullptr, 16) >> (SIGINT - 1)) & 1;
}

// A reward that answers at once until the file `gate` is there, and then never.
std::vector<std::string> GatedReward(const TempFolder& temp, const std::string& gate) {
  const std::string program = temp / "gated.sh";
  RealFileSystem().WriteFileAtomic(
      program, "#!/bin/sh\nwhile IFS= read -r line; do while [ -e '" + gate +
                   "' ]; do sleep 0.05; done; id=${line#'{\"id\":'}; id=${id%%,*}\n"
                   "printf '{\"id\":%s,\"score\":0.%s}\\n' \"$id\" \"$((id % 7))\"; done\n");
  return {"--set", "reward.parts.1.kind=program",
          "--set", "reward.parts.1.path=sh",
          "--set", "reward.parts.1.args=[\"" + program + "\"]",
          "--set", "reward.parts.1.target_tokens=0",
          "--set", "reward.parts.1.max_tokens=0",
          "--set", "reward.parts.1.timeout_s=600",
          "--set", "reward.allow_unsandboxed=true",
          "--set", "run.checkpoint_every=0"};
}

// Ctrl-C while the answers of a step are awaited: the steps so far are a checkpoint at once,
// although a reward is still busy; a second does not wait for that either, and the run goes on from
// there.
void StopWhileAnswersAreAwaited(const std::string& roles) {
  const TempFolder temp;
  const std::string run = temp / "run";
  // Not in /tmp, which a sandbox hides.
  const std::string gate =
      plumb::testing::BinaryPath("stop_test_gate_" + roles + std::to_string(getpid()));
  std::vector<std::string> more = GatedReward(temp, gate);
  more.insert(more.end(), {"--roles", roles});
  const pid_t program = StartProgram(TrainLine(run, 1000, more), run);
  ASSERT_GT(program, 0);
  ASSERT_TRUE(Soon(program, [&] { return StepsDone(run) >= 2; })) << Read(run + ".out");
  RealFileSystem().WriteFileAtomic(gate, "");
  // No step comes any more: the learner waits. On a busy machine a step may take a second by
  // itself.
  int64_t steps = -1;
  int quiet = 0;
  ASSERT_TRUE(Soon(program, [&] {
    const int64_t before = std::exchange(steps, StepsDone(run));
    quiet = before == steps ? quiet + 1 : 0;
    std::this_thread::sleep_for(milliseconds(400));
    return quiet >= 4 && StepsDone(run) == steps;
  }));
  ::kill(program, SIGINT);
  char name[32];
  std::snprintf(name, sizeof name, "/step-%08lld", static_cast<long long>(steps));
  const std::string checkpoint = run + "/checkpoints" + name + "/manifest.json";
  EXPECT_TRUE(Soon(program, [&] { return RealFileSystem().Exists(checkpoint); }))
      << steps << Read(run + ".out");
  const std::string said = "waits no longer for the answers of step " + std::to_string(steps + 1);
  // The learner's process says it beside what it saves.
  EXPECT_TRUE(Soon(program, [&] { return Has(Read(run + ".out"), said); })) << Read(run + ".out");
  std::this_thread::sleep_for(kSameSignal);  // or it is the first, sent twice
  ::kill(program, SIGINT);
  EXPECT_EQ(CodeWithin(program, 8), 7) << Read(run + ".out");
  EXPECT_EQ(StateOf(run), RunState::kStopped);
  if (roles == "local") {  // which would wait for the reward, in order
    const std::string advice =
        "stopped at once; the newest checkpoint is step " + std::to_string(steps) + ": go on with ";
    EXPECT_TRUE(Has(Read(run + ".out"), advice)) << Read(run + ".out");
    EXPECT_TRUE(Has(Read(run + ".out"), " train --resume --out " + run + "\n"));
  }

  RealFileSystem().RemoveAll(gate);
  std::vector<std::string> resume = more;
  resume.emplace_back("--resume");
  ASSERT_EQ(TrainInProgram(run, steps + 2, resume), 0) << Read(run + ".out");
  const auto lines = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(static_cast<int64_t>(lines.size()), steps + 2);
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i]["step"], i) << "every step once";
}

TEST(StopTest, LocalWhileAnswersAreAwaited) { StopWhileAnswersAreAwaited("local"); }
TEST(StopTest, ProcessesWhileAnswersAreAwaited) { StopWhileAnswersAreAwaited("processes"); }

// A pipe that nobody writes to stands for a file of gigabytes: whoever reads it is busy until it is
// stopped.
TEST(StopTest, WhatLoadsOrReadsEndsWithinASecond) {
  const TempFolder temp;
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::ModelShape shape{.layers = 1,
                                 .hidden = 32,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .ffn = 64,
                                 .vocab = tokenizer->size(),
                                 .max_positions = 64};
  shape.bos_token = tokenizer->Find("<bos>");
  shape.eos_tokens = {tokenizer->Find("<eos>")};
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(5, 0.3);
  const std::string model = temp / "model", pipe = temp / "rows.jsonl";
  policy_model::SaveModelDirectory(weights, model, "");
  RealFileSystem().WriteFileAtomic(model + "/tokenizer.json", tokenizer->json());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::vector<std::pair<std::string, std::vector<std::string>>> verbs = {
      {"local",
       TrainLine(temp / "local", 2, {"--set", "data.train=" + pipe, "--set", "sft.steps=0"})},
      {"processes",
       TrainLine(temp / "processes", 2,
                 {"--set", "data.train=" + pipe, "--set", "sft.steps=0", "--roles", "processes"})},
      {"import", {"data", "import", pipe, "--store", temp / "store"}},
      {"eval", {"eval", model, pipe}},
      {"score", {"score", model, pipe}},
  };
  std::vector<std::string> endless = {"generate",         model, "--samples", "4096",
                                      "--max-new-tokens", "60"};
  for (int i = 0; i < 64; ++i)
    endless.insert(endless.end(), {"--prompt", std::to_string(i) + "+1="});
  verbs.emplace_back("generate", endless);
  for (const auto& [name, line] : verbs) {
    const pid_t child = StartProgram(line, temp / (name + "-said"));
    ASSERT_GT(child, 0);
    EXPECT_TRUE(Soon(child, [&] { return Catches(child); })) << name;
    std::this_thread::sleep_for(milliseconds(name == "processes" ? 1500 : 500));
    const auto begin = SteadyClock::now();
    ::kill(child, name == "eval" ? SIGTERM : SIGINT);
    const std::string said = temp / (name + "-said.out");
    const int code = CodeWithin(child, 30);
    EXPECT_EQ(code, 7) << name << ": " << Read(said);
    const double limit =
        name == "processes" ? 6 : 2;  // each process has its grace, and the machine is busy
    EXPECT_LT(std::chrono::duration<double>(SteadyClock::now() - begin).count(), limit) << name;
    if (name == "processes") {
      EXPECT_TRUE(Has(Read(said), "stopping its processes")) << Read(said);
      // However far the learner's process had come: who started it speaks for one that had not
      // begun.
      EXPECT_TRUE(Has(Read(said), "stopped: ") || Has(Read(said), "trained 0 of 2 steps"))
          << Read(said);
    } else {
      EXPECT_TRUE(Has(Read(said), "stopped")) << name << ": " << Read(said);
    }
  }
}

// The summary of the life before does not speak of one that went on and was killed.
TEST(StopTest, ALifeThatTrainsRemovesTheSummaryOfTheOneBefore) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(Train(run, 2).code, 0);
  ASSERT_TRUE(RealFileSystem().Exists(run + "/summary.json"));
  const pid_t program = StartProgram(TrainLine(run, 100000, {"--resume"}), run);
  ASSERT_GT(program, 0);
  ASSERT_TRUE(Soon(program, [&] { return StepsDone(run) >= 3; })) << Read(run + ".out");
  ::kill(program, SIGKILL);
  waitpid(program, nullptr, 0);
  EXPECT_FALSE(RealFileSystem().Exists(run + "/summary.json"));
  EXPECT_EQ(StateOf(run), RunState::kFailed);
}

// The folder belongs to the run until its process is gone; then nothing of it stands in the way.
TEST(StopTest, AFolderInUseIsNeitherOverwrittenNorResumed) {
  const TempFolder temp;
  for (const std::string roles : {"local", "processes"}) {
    const std::string run = temp / roles;
    const pid_t program = StartProgram(TrainLine(run, 100000, {"--roles", roles}), run);
    ASSERT_GT(program, 0);
    ASSERT_TRUE(Soon(program, [&] { return StepsDone(run) >= 2; })) << Read(run + ".out");
    for (const char* how : {"--overwrite", "--resume"}) {
      const CliOutput second = Train(run, 3, {how});
      EXPECT_EQ(second.code, 2) << how;
      EXPECT_TRUE(
          Has(second.err, "going on in this folder (process " + std::to_string(program) + ")"))
          << second.err;
    }
    const int64_t before = StepsDone(run);
    EXPECT_TRUE(Soon(program, [&] { return StepsDone(run) > before; })) << "it was not disturbed";
    ::kill(program, SIGKILL);
    waitpid(program, nullptr, 0);
    const CliOutput after = Train(run, 2, {"--overwrite"});
    EXPECT_EQ(after.code, 0) << after.err;
    EXPECT_EQ(StepsDone(run), 2);
  }
}

// A run whose folder is renamed under it would write into whatever comes to lie there: it ends, and
// goes on where the folder is.
TEST(StopTest, ARunWhoseFolderIsMovedEndsAndWritesNothingInItsPlace) {
  const TempFolder temp;
  const std::string run = temp / "run", moved = temp / "moved";
  const pid_t program = StartProgram(TrainLine(run, 100000, {}), run);
  ASSERT_GT(program, 0);
  ASSERT_TRUE(Soon(program, [&] { return StepsDone(run) >= 3; })) << Read(run + ".out");
  std::filesystem::rename(run, moved);
  EXPECT_EQ(CodeWithin(program, 60), 2) << Read(run + ".out");
  EXPECT_TRUE(Has(Read(run + ".out"), "moved, removed or replaced")) << Read(run + ".out");
  EXPECT_FALSE(RealFileSystem().Exists(run + "/checkpoints"));
  const CliOutput resumed = RunPlumb({"train", moved + "/config.toml", "--out", moved, "--resume",
                                      "--steps", std::to_string(StepsDone(moved) + 1)});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
}

}  // namespace
}  // namespace plumb::run::testing
