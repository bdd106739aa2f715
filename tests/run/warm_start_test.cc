// Ctrl-C, SIGTERM and kill -9 in the warm start of a whole run, in one process and in several, then
// --resume: it goes on where it stood, and the run ends as the unbroken one. Row 24 of
// docs/reliability.md; learner/loop/step_loop.h has the named places.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::ExpectSameRun;
using testing::Has;
using testing::Read;
using testing::StartProgram;
using testing::Train;
using testing::TrainInProgram;
using testing::TrainLine;

constexpr int64_t kUpdates = 300, kSteps = 2;

std::vector<std::string> With(const std::string& algorithm,
                              const std::vector<std::string>& more = {}) {
  std::vector<std::string> all = {"--set", "sft.steps=" + std::to_string(kUpdates),
                                  "--set", "sft.patience=0",
                                  "--set", "sft.eval_every=10",
                                  "--set", "run.checkpoint_every=20",
                                  "--set", "algorithm.name=" + algorithm,
                                  "--set", "algorithm.kl_coef=0.1"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

// One is written beside the updates: it is there once it has its name.
bool HasCheckpoint(const std::string& run) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(run + "/checkpoints", none)) {
    if (entry.path().filename().string().starts_with("warm-start-")) return true;
  }
  return false;
}

// Starts the run, ends it with `signal` in the middle of its warm start, and returns how it ended.
int EndInWarmStart(const std::string& run, const std::vector<std::string>& more, int signal) {
  const pid_t program = StartProgram(TrainLine(run, kSteps, more), run);
  EXPECT_GT(program, 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!(RealFileSystem().Exists(run + ".out") && Has(Read(run + ".out"), "warm start 30:") &&
           HasCheckpoint(run))) {
    EXPECT_LT(std::chrono::steady_clock::now(), deadline);
    if (::testing::Test::HasFailure()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::kill(program, signal);
  int status = 0;
  EXPECT_EQ(waitpid(program, &status, 0), program);
  return status;
}

void EndAndResume(const std::string& algorithm, const std::string& roles, int signal) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(Train(temp / "whole", kSteps, With(algorithm)).code, 0);
  const int status = EndInWarmStart(run, With(algorithm, {"--roles", roles}), signal);
  if (signal == SIGKILL) {
    EXPECT_TRUE(WIFSIGNALED(status));
  } else {
    ASSERT_TRUE(WIFEXITED(status)) << Read(run + ".out");
    EXPECT_EQ(WEXITSTATUS(status), 7) << Read(run + ".out");
    EXPECT_TRUE(Has(Read(run + ".out"), " of 300 updates: --resume goes on from there"))
        << Read(run + ".out");
    const auto summary = nlohmann::json::parse(Read(run + "/summary.json"));
    EXPECT_EQ(summary["steps"], 0);
    EXPECT_LT(summary["sft"]["steps"], kUpdates);
  }
  EXPECT_FALSE(RealFileSystem().Exists(run + "/checkpoints/step-00000000"))
      << "half a warm start is no start";
  EXPECT_FALSE(RealFileSystem().Exists(run + "/checkpoints/reference"));

  ASSERT_EQ(TrainInProgram(run, kSteps, With(algorithm, {"--roles", roles, "--resume"})), 0)
      << Read(run + ".out");
  EXPECT_TRUE(Has(Read(run + ".out"), "the warm start goes on behind")) << Read(run + ".out");
  ExpectSameRun(temp / "whole", run);
  const auto whole = nlohmann::json::parse(Read(temp / "whole/summary.json")),
             resumed = nlohmann::json::parse(Read(run + "/summary.json"));
  EXPECT_EQ(resumed["sft"], whole["sft"]);
  EXPECT_EQ(resumed["sft"]["steps"], kUpdates);
  EXPECT_EQ(resumed["eval"], whole["eval"]);
  EXPECT_EQ(resumed.contains("critic_sha256"), algorithm == "ppo");
  EXPECT_EQ(resumed.value("critic_sha256", ""), whole.value("critic_sha256", ""));
  EXPECT_EQ(Read(run + "/checkpoints/reference/model.safetensors"),
            Read(temp / "whole/checkpoints/reference/model.safetensors"))
      << "KL is measured against another model";
}

TEST(WarmStartRunTest, LocalGrpoCtrlC) { EndAndResume("grpo", "local", SIGINT); }
TEST(WarmStartRunTest, LocalPpoKilled) { EndAndResume("ppo", "local", SIGKILL); }
TEST(WarmStartRunTest, ProcessesGrpoKilled) { EndAndResume("grpo", "processes", SIGKILL); }
TEST(WarmStartRunTest, ProcessesPpoSigterm) { EndAndResume("ppo", "processes", SIGTERM); }

}  // namespace
}  // namespace plumb::run
