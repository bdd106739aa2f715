// plumb train on a tiny recipe: a run folder that holds together, resume, fewer steps, processes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/program_call.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::Lines;
using testing::Read;
using testing::RunPlumb;
using testing::Train;
using testing::TrainInProgram;
using testing::TrainLine;

TEST(TrainCommandTest, LeavesARunFolderThatHoldsTogether) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const CliOutput output = Train(run, 4);
  ASSERT_EQ(output.code, 0) << output.err;
  EXPECT_TRUE(Has(output.out, "after:  held-out pass@1")) << output.out;
  EXPECT_TRUE(Has(output.out, "warm start of at most 3 updates (sft.steps), then 4 steps of "))
      << output.out;
  const auto metrics = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 4u);
  for (size_t i = 0; i < metrics.size(); ++i) {
    EXPECT_EQ(metrics[i]["step"], i);
    EXPECT_GT(metrics[i]["policy/updates"].get<double>(), 0);
    for (const char* name : {"reward/mean", "reward/correct/mean", "reward/short/mean",
                             "policy/entropy", "optim/grad_norm", "perf/tokens_per_s"}) {
      EXPECT_TRUE(metrics[i].contains(name)) << name;
    }
    // float32 on the CPU: the learner computes what the actor sampled with.
    ASSERT_TRUE(metrics[i].contains("sampling/logprob_diff_max"));
    EXPECT_LT(metrics[i]["sampling/logprob_diff_max"].get<double>(), 1e-4);
  }
  for (const auto& sample : Lines(run + "/samples.jsonl"))
    EXPECT_TRUE(sample.contains("completion"));
  const auto summary = nlohmann::json::parse(Read(run + "/summary.json"));
  EXPECT_EQ(summary["steps"], 4);
  EXPECT_EQ(summary["policy_version"], 4);
  EXPECT_EQ(summary["eval"]["after"]["answers"], 10);
  EXPECT_EQ(summary["weights_sha256"].get<std::string>().size(), 64u);
  EXPECT_TRUE(Has(Read(run + "/report.html"), summary["policy_digest"].get<std::string>()));
  EXPECT_EQ(RunPlumb({"store", "inspect", run + "/store", "--verify"}).code, 0);
  const std::string last = run + "/checkpoints/step-00000004/model";
  EXPECT_TRUE(Has(output.out, "model:  " + run + "/model\ntry:    " + ProgramCall() + " generate " +
                                  run + " --prompt '...'\nalso:   transformers and vLLM read"))
      << output.out;
  EXPECT_EQ(Read(run + "/model/model.safetensors"), Read(last + "/model.safetensors"));
  std::vector<std::string> said;
  for (const std::string& model : {last, run + "/model", run}) {
    said.push_back(RunPlumb({"generate", model, "--prompt", "1+2=", "--max-new-tokens", "4",
                             "--temperature", "0"})
                       .out);
  }
  EXPECT_FALSE(said[0].empty());
  EXPECT_EQ(said[1], said[0]);
  EXPECT_EQ(said[2], said[0]) << "a run's folder will do";
}

uintmax_t BytesBelow(const std::string& folder) {
  uintmax_t sum = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) sum += entry.file_size();
  }
  return sum;
}

// A bfloat16 model of 2 bytes a parameter: a finished run holds it once, and half a master each.
TEST(TrainCommandTest, AFinishedRunTakesFourBytesAParameter) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const CliOutput output =
      Train(run, 4,
            {"--set", "model.dtype=bfloat16", "--set", "algorithm.logprob_gate=0", "--set",
             "model.hidden=128", "--set", "model.ffn=512", "--set", "model.layers=2"});
  ASSERT_EQ(output.code, 0) << output.err;
  EXPECT_TRUE(Has(output.out, "a checkpoint holds ")) << output.out;
  const std::string last = run + "/checkpoints/step-00000004";
  std::vector<std::string> kept;
  for (const std::string& name : RealFileSystem().List(run + "/checkpoints"))
    if (name.starts_with("step-")) kept.push_back(name);
  EXPECT_EQ(kept, std::vector<std::string>{"step-00000004"}) << "one, and none of the start";
  const auto weights = RealFileSystem().FileSize(last + "/model/model.safetensors");
  EXPECT_GT(weights, 400'000u);
  EXPECT_LT(BytesBelow(run + "/checkpoints"), 2 * weights + 100'000);
  EXPECT_EQ(std::filesystem::hard_link_count(run + "/model/model.safetensors"), 2u)
      << "the model lies on the disk once";

  // Longer, with moments that begin anew, from the run's own recipe.
  const CliOutput longer = RunPlumb({"train", "--resume", "--out", run, "--steps", "6"});
  ASSERT_EQ(longer.code, 0) << longer.err;
  EXPECT_TRUE(Has(longer.out, "holds no moments of the optimizer: they begin anew")) << longer.out;
  EXPECT_EQ(Lines(run + "/metrics.jsonl").size(), 6u);
  EXPECT_NE(Read(run + "/model/model.safetensors").size(), 0u);
  EXPECT_EQ(Read(run + "/model/model.safetensors"),
            Read(run + "/checkpoints/step-00000006/model/model.safetensors"));
}

TEST(TrainCommandTest, AResumeNeedsARunAndARecipeOrAFolder) {
  const TempFolder temp;
  const CliOutput none = RunPlumb({"train", "--resume", "--out", temp / "misspelt"});
  EXPECT_EQ(none.code, 3);
  EXPECT_TRUE(Has(none.err, "no run in this folder") && Has(none.err, temp / "misspelt"))
      << none.err;
  EXPECT_FALSE(RealFileSystem().Exists(temp / "misspelt"));
  for (const auto& line : {std::vector<std::string>{"train"},
                           {"train", "--resume"},
                           {"train", "--out", temp / "run"}}) {
    const CliOutput bare = RunPlumb(line);
    EXPECT_EQ(bare.code, 2);
    EXPECT_TRUE(Has(bare.err, "a recipe is missing")) << bare.err;
  }
  // Without --out it is where a run of the recipe would lie.
  const std::string recipe = temp / "resumed_where.toml";
  RealFileSystem().WriteFileAtomic(recipe,
                                   Read(plumb::testing::SourcePath("configs/toy_grpo.toml")));
  const CliOutput unnamed = RunPlumb({"train", recipe, "--resume"});
  EXPECT_EQ(unnamed.code, 3) << unnamed.err;
  EXPECT_TRUE(Has(unnamed.err, "runs/resumed_where: there is no run in this folder to go on with"))
      << unnamed.err;
  const CliOutput negative = Train(temp / "run", -3);
  EXPECT_EQ(negative.code, 2);
  EXPECT_TRUE(Has(negative.err, "--steps: is -3: it takes a whole number from 0")) << negative.err;
  EXPECT_LT(negative.err.size(), 200u) << negative.err;
  const CliOutput set = Train(temp / "run", 1, {"--set", "run.stall_seconds=-3"});
  EXPECT_TRUE(
      Has(set.err, "--set run.stall_seconds=-3: run.stall_seconds = -3.0 has to be positive"))
      << set.err;
}

TEST(TrainCommandTest, SamplesHaveTheLastStepAndAllAnswersWhereAsked) {
  const TempFolder temp;
  const auto steps = [&](const std::string& run) {
    std::map<int64_t, int64_t> lines;
    for (const auto& sample : Lines(run + "/samples.jsonl")) ++lines[sample["step"].get<int64_t>()];
    return lines;
  };
  ASSERT_EQ(Train(temp / "some", 6, {"--set", "metrics.samples_every=4"}).code, 0);
  EXPECT_EQ(steps(temp / "some"), (std::map<int64_t, int64_t>{{0, 2}, {4, 2}, {5, 2}}));
  ASSERT_EQ(Train(temp / "all", 6,
                  {"--set", "metrics.samples_every=4", "--set", "metrics.log_completions=true"})
                .code,
            0);
  EXPECT_EQ(steps(temp / "all"), (std::map<int64_t, int64_t>{{0, 16}, {4, 16}, {5, 16}}));
  ASSERT_EQ(Train(temp / "none", 2, {"--set", "metrics.samples_every=0"}).code, 0);
  EXPECT_TRUE(steps(temp / "none").empty());
}

// Peak memory of a run of its own process in KiB, with a reward that takes so many seconds a group
// of four.
long PeakWithReward(const std::string& out, int64_t steps, const std::string& seconds_an_answer) {
  std::vector<std::string> line =
      TrainLine(out, steps, {"--set", "run.schedule=async", "--set", "run.max_staleness=4"});
  const std::string recipe = out + ".toml";
  RealFileSystem().WriteFileAtomic(
      out + ".sh",
      "#!/bin/sh\nwhile IFS= read -r line; do id=${line#'{\"id\":'}; id=${id%%,*}; sleep " +
          seconds_an_answer + "\nprintf '{\"id\":%s,\"score\":0.5}\\n' \"$id\"; done\n");
  std::string text = RealFileSystem().ReadFile(recipe, 1 << 20);
  const size_t at = text.find("\n[[reward.parts]]\nname = \"short\"");
  PLUMB_CHECK(at != std::string::npos);
  text.insert(at,
              "\n[[reward.parts]]\nname = \"slow\"\nkind = \"program\"\npath = \"sh\"\nargs = [\"" +
                  out + ".sh\"]\nweight = 0.01\n");
  RealFileSystem().WriteFileAtomic(recipe, text);
  const pid_t pid = fork();
  if (pid == 0) {
    std::vector<char*> arguments = {const_cast<char*>("plumb")};
    for (const std::string& word : line) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    [[maybe_unused]] FILE* file = std::freopen((out + ".out").c_str(), "w", stdout);
    dup2(1, 2);
    execv(PLUMB_BINARY_DIR "/plumb", arguments.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(pid, &status, 0, &usage);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << Read(out + ".out");
  return usage.ru_maxrss;
}

// RELIABILITY row 11: generation takes about a millisecond a group here, the reward a hundred.
TEST(TrainCommandTest, ARewardAHundredTimesSlowerDropsNothingAndFillsNoMemory) {
  const TempFolder temp;
  const char* size = std::getenv("PLUMB_RELIABILITY");
  // 300: two minutes of scoring
  const int64_t steps = size != nullptr && std::string(size) == "ci" ? 300 : 10;
  const long fast = PeakWithReward(temp / "fast", steps, "0"),
             slow = PeakWithReward(temp / "slow", steps, "0.025");
  RecordProperty("fast_kib", static_cast<int>(fast));
  RecordProperty("slow_kib", static_cast<int>(slow));
  EXPECT_LE(static_cast<double>(slow), 1.1 * static_cast<double>(fast));
  const auto summary = nlohmann::json::parse(Read(temp / "slow/summary.json"));
  EXPECT_EQ(summary["steps"], steps);
  const auto metrics = Lines(temp / "slow/metrics.jsonl");
  ASSERT_EQ(metrics.size(), static_cast<size_t>(steps));
  EXPECT_GT(metrics.back()["reward/slow/latency_p50"].get<double>(), 0.09);
  EXPECT_GE(metrics.back()["reward/groups"].get<double>(), static_cast<double>(4 * steps));
  for (const auto& [name, value] : metrics.back().items()) {
    if (name.starts_with("reward/failed/") || (name == "reward/dropped_groups" && value != 0))
      ADD_FAILURE() << name << " " << value;
  }
}

// The rate may not depend on the number of steps here: the first part does not know how many will
// follow.
TEST(TrainCommandTest, ResumedWithMoreStepsEqualsUnbrokenBitForBit) {
  const TempFolder temp;
  const std::vector<std::string> constant = {"--set", "optimizer.lr_schedule=constant",
                                             "--set", "optimizer.warmup_fraction=0",
                                             "--set", "checkpoint.optimizer=always"};
  std::vector<std::string> resume = constant;
  resume.push_back("--resume");
  ASSERT_EQ(Train(temp / "whole", 5, constant).code, 0);
  ASSERT_EQ(Train(temp / "parts", 2, constant).code, 0);
  const CliOutput again = Train(temp / "parts", 5, constant);
  EXPECT_EQ(again.code, 2) << "there is a run already";
  EXPECT_TRUE(Has(again.err, "--resume"));
  ASSERT_EQ(Train(temp / "parts", 5, resume).code, 0);
  const auto whole = nlohmann::json::parse(Read(temp / "whole/summary.json"));
  const auto parts = nlohmann::json::parse(Read(temp / "parts/summary.json"));
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(whole[hash], parts[hash]) << hash;
  const auto a = Lines(temp / "whole/metrics.jsonl"), b = Lines(temp / "parts/metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    for (const char* name : {"reward/mean", "policy/loss", "policy/entropy", "optim/grad_norm"})
      EXPECT_EQ(a[i][name], b[i][name]) << i << name;
  }
}

// The whole program is killed between checkpoints, twice, under the recipe's own schedule.
TEST(TrainCommandTest, ResumedAfterKilledEqualsUnbrokenBitForBit) {
  const TempFolder temp;
  const std::string run = temp / "killed";
  constexpr int64_t kSteps = 40;
  ASSERT_EQ(Train(temp / "whole", kSteps).code, 0);
  int64_t kills = 0;
  for (const int64_t at : {7, 21}) {
    std::vector<std::string> line = TrainLine(run, kSteps, {});
    if (kills > 0) line.push_back("--resume");
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::vector<char*> arguments = {const_cast<char*>("plumb")};
      for (std::string& word : line) arguments.push_back(word.data());
      arguments.push_back(const_cast<char*>("--quiet"));
      arguments.push_back(nullptr);
      if (!std::freopen("/dev/null", "w", stdout)) _exit(126);
      execv(PLUMB_BINARY_DIR "/plumb", arguments.data());
      _exit(127);
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    bool ended = false;
    while (!ended && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ended = waitpid(child, nullptr, WNOHANG) == child;
      if (ended || !RealFileSystem().Exists(run + "/metrics.jsonl")) continue;
      const std::string metrics = Read(run + "/metrics.jsonl");
      if (std::count(metrics.begin(), metrics.end(), '\n') >= at) break;
    }
    ASSERT_FALSE(ended) << "the run ended before it could be killed";
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    EXPECT_FALSE(RealFileSystem().Exists(run + "/summary.json")) << "it was in the middle";
    ++kills;
  }
  const CliOutput resumed = Train(run, kSteps, {"--resume"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  const auto whole = nlohmann::json::parse(Read(temp / "whole/summary.json"));
  const auto killed = nlohmann::json::parse(Read(run + "/summary.json"));
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(whole[hash], killed[hash]) << hash;
  const auto a = Lines(temp / "whole/metrics.jsonl"), b = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(a.size(), b.size()) << "no step twice, none missing";
  for (size_t i = 0; i < a.size(); ++i) {
    for (const char* name : {"step", "reward/mean", "policy/loss", "optim/grad_norm"})
      EXPECT_EQ(a[i][name], b[i][name]) << i << name;
  }
}

TEST(TrainCommandTest, ProcessesEqualOneProcessBitForBit) {
  const TempFolder temp;
  ASSERT_EQ(Train(temp / "local", 3).code, 0);
  ASSERT_EQ(TrainInProgram(
                temp / "processes", 3,
                {"--roles", "processes", "--set", "run.actors=2", "--set", "run.reward_workers=2"}),
            0)
      << Read(temp / "processes.out");
  const auto local = nlohmann::json::parse(Read(temp / "local/summary.json"));
  const auto processes = nlohmann::json::parse(Read(temp / "processes/summary.json"));
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(local[hash], processes[hash]) << hash;
  EXPECT_EQ(local["eval"], processes["eval"]);
  EXPECT_EQ(nlohmann::json::parse(Read(temp / "processes/pids.json")).size(), 6u);
}

// What was read of the data, row by row, is said before what is trained on it.
TEST(TrainCommandTest, ProcessesSayOfTheDataWhatOneProcessSays) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl";
  std::string text;
  for (int i = 1; i < 9; ++i)
    text += "{\"prompt\": \"" + std::to_string(i) + "+1=\", \"answer\": \"" +
            std::to_string(i + 1) + "\"}\n";
  RealFileSystem().WriteFileAtomic(rows, text + "broken\n");
  const auto before_training = [](const std::string& said) {
    std::istringstream in(said);
    std::string kept;
    for (std::string line; std::getline(in, line) && line != "-- training";) {
      const bool own = Has(line, "run folder") || Has(line, "roles ") ||
                       Has(line, "a checkpoint") || line.starts_with("memory: ");
      if (!own) kept += line + "\n";
    }
    return kept;
  };
  const std::vector<std::string> more = {"--set", "data.train=" + rows, "--set", "sft.steps=0"};
  ASSERT_EQ(TrainInProgram(temp / "local", 1, more), 0) << Read(temp / "local.out");
  std::vector<std::string> apart = more;
  apart.insert(apart.end(), {"--roles", "processes"});
  ASSERT_EQ(TrainInProgram(temp / "apart", 1, apart), 0) << Read(temp / "apart.out");
  const std::string local = before_training(Read(temp / "local.out"));
  EXPECT_TRUE(Has(local, "\n  row 1: prompt \"1+1=\"  ground truth \"2\"\n") &&
              Has(local, "rows.jsonl:9: bad_json"))
      << local;
  EXPECT_EQ(before_training(Read(temp / "apart.out")), local);
  for (const std::string& run : {temp / "local", temp / "apart"})
    EXPECT_TRUE(Has(Read(run + ".out"),
                    "try:    " + plumb::testing::BinaryPath("plumb") + " generate " + run))
        << "as it was called: " << Read(run + ".out");
}

// RELIABILITY row 2 at smoke size: each role is killed once in the middle of a run, which ends with
// the same weights.
TEST(TrainCommandTest, KilledRolesChangeNothing) {
  const TempFolder temp;
  const std::string run = temp / "killed";
  constexpr int64_t kSteps = 40;
  ASSERT_EQ(Train(temp / "local", kSteps).code, 0);
  int code = -1;
  std::thread program([&] { code = TrainInProgram(run, kSteps, {"--roles", "processes"}); });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  int kills = 0;
  const std::vector<std::string> roles = {"actor-0", "reward-0", "replay", "learner"};
  while (kills < static_cast<int>(roles.size()) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!RealFileSystem().Exists(run + "/metrics.jsonl") ||
        !RealFileSystem().Exists(run + "/pids.json"))
      continue;
    const std::string metrics = Read(run + "/metrics.jsonl");
    if (std::count(metrics.begin(), metrics.end(), '\n') < 4 + 8 * kills) continue;
    const auto pid =
        nlohmann::json::parse(Read(run + "/pids.json"))[roles[static_cast<size_t>(kills)]]
            .get<pid_t>();
    if (pid <= 1) continue;  // just being started again
    ::kill(pid, SIGKILL);
    ++kills;
  }
  program.join();
  ASSERT_EQ(code, 0) << Read(run + ".out");
  EXPECT_EQ(kills, 4);
  EXPECT_TRUE(Has(Read(run + ".out"), "roles started again: 4")) << Read(run + ".out");
  const auto local = nlohmann::json::parse(Read(temp / "local/summary.json"));
  const auto killed = nlohmann::json::parse(Read(run + "/summary.json"));
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(local[hash], killed[hash]) << hash;
  const auto a = Lines(temp / "local/metrics.jsonl"), b = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(a.size(), b.size()) << "no step twice, none missing";
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i]["policy/loss"], b[i]["policy/loss"]) << i;
}

TEST(TrainCommandTest, SameSeedSameWeightsOtherSeedOthers) {
  const TempFolder temp;
  const auto digest = [&](const std::string& name, const std::string& seed) {
    EXPECT_EQ(Train(temp / name, 2, {"--set", "run.seed=" + seed}).code, 0);
    return nlohmann::json::parse(Read(temp / (name + "/summary.json")))["weights_sha256"]
        .get<std::string>();
  };
  const std::string first = digest("a", "3");
  EXPECT_EQ(digest("b", "3"), first);
  EXPECT_NE(digest("c", "4"), first);
}

TEST(TrainCommandTest, ABatchLargerThanTheDataIsSaidAtTheStart) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "rows.jsonl", "{\"prompt\":\"1+1=\",\"answer\":\"2\"}\n");
  const CliOutput output =
      Train(temp / "run", 1,
            {"--set", "data.train=\"" + temp / "rows.jsonl" + "\"", "--set", "sft.steps=0"});
  EXPECT_EQ(output.code, 2) << output.err;
  EXPECT_TRUE(Has(output.err, "only 1 usable row")) << output.err;
}

}  // namespace
}  // namespace plumb::run
