// Whole runs whose ring is disturbed: rewards that were away, a learner that comes back with other
// weights, a stop in a wait.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>

#include "common/base/crash_point.h"
#include "policy_model/memory/threads.h"
#include "policy_model/transformer.h"
#include "run/commands/cli.h"
#include "run/roles/roles.h"
#include "tests/run/toy_run.h"
#include "tests/testing/paths.h"

namespace plumb::run {
namespace {

using testing::ExpectSameRun;
using testing::Lines;
using testing::Read;
using testing::RunPlumb;
using testing::StartProgram;

// In the build folder: what rewards may look at is not in /tmp.
class Folder {
 public:
  Folder() : path_(plumb::testing::BinaryPath("ring_train_XXXXXX")) {
    PLUMB_CHECK(::mkdtemp(path_.data()) != nullptr, path_);
  }
  ~Folder() { RealFileSystem().RemoveAll(path_); }
  Folder(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class RingTrain : public ::testing::Test {
 protected:
  // A shell script that scores short answers best. `before` is what it does first; it has $id,
  // $line, and $step, the steps that `run` has done, which is the one that is being answered.
  void WriteReward(const std::string& run, const std::string& before) {
    RealFileSystem().WriteFileAtomic(
        temp_ / "reward.sh",
        "while IFS= read -r line; do\n"
        "  id=${line#'{\"id\":'}\n"
        "  id=${id%%,*}\n"
        "  answer=${line#*'\"completion\":\"'}\n"
        "  answer=${answer%%'\",\"ground_truth\"'*}\n"
        "  step=0\n"
        "  if [ -f '" +
            run +
            "/metrics.jsonl' ]; then\n"
            "    while read -r _; do step=$((step + 1)); done < '" +
            run +
            "/metrics.jsonl'\n"
            "  fi\n"
            "  " +
            before +
            "\n"
            "  printf '{\"id\":%s,\"score\":0.%03d}\\n' \"$id\" $((999 - ${#answer}))\n"
            "done\n");
  }
  std::vector<std::string> Line(const std::string& run, int64_t steps,
                                const std::vector<std::string>& more = {}) {
    RealFileSystem().WriteFileAtomic(
        temp_ / "recipe.toml",
        "[run]\nseed = 1\nthreads = 1\ncheckpoint_every = 3\n"
        "[model]\nlayers = 1\nhidden = 32\nheads = 2\nkv_heads = 2\nffn = 64\nmax_positions = 64\n"
        "vocabulary = \"arithmetic\"\ninit_std = 0.05\n"
        "[data]\ntrain = \"arithmetic\"\n"
        "[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 4\nmax_new_tokens = 8\nmax_batch = "
        "32\n"
        "kv_budget_mb = 64\n"
        "[reward]\nallow_unsandboxed = true\nretries = 0\n"
        "[[reward.parts]]\nname = \"short\"\nkind = \"program\"\npath = \"sh\"\nargs = [\"" +
            (temp_ / "reward.sh") +
            "\"]\n"
            "timeout_s = 60\n"
            "[algorithm]\nname = \"grpo\"\n"
            "[optimizer]\nlearning_rate = 3e-3\n");
    std::vector<std::string> line = {"train",   temp_ / "recipe.toml", "--quiet", "--out", run,
                                     "--steps", std::to_string(steps)};
    line.insert(line.end(), more.begin(), more.end());
    return line;
  }
  // The exit code of the program on this line: rewards that are programs start it once more, as
  // their host.
  int Program(const std::vector<std::string>& line) {
    const pid_t child = StartProgram(line, temp_ / "said");
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string Said() const { return Read(temp_ / "said.out"); }
  static int64_t Counter(const std::string& run, const std::string& name) {
    return nlohmann::json::parse(Read(run + "/summary.json"))["counters"].value(name, int64_t{0});
  }

  const Folder temp_;
};

// Threads share the learner's weights in place, where a second answer to one lease would be sampled
// by weights that change; a process that hangs has lost its leases before the run has lost its
// patience, and renews them often enough.
TEST(RingOptions, LeasesLastAsLongAsTheirHoldersCan) {
  configs::Config config;
  config.run.actors = 3;
  EXPECT_GT(TableOptionsOf(config).lease_timeout_ms, int64_t{1000} * 3600 * 24 * 365);
  EXPECT_EQ(TableOptionsOf(config).actors, 1);
  config.run.roles = configs::Roles::kProcesses;
  config.run.stall_seconds = 100;
  EXPECT_EQ(TableOptionsOf(config).lease_timeout_ms, 50'000);
  EXPECT_EQ(TableOptionsOf(config).actors, 3);
}

// What is given is what a process has; without a number, and where one process has both roles at
// work at a time, cores are shared.
TEST(RingOptions, RolesThatComputeSideBySideShareTheThreads) {
  const auto shares = [](const char* roles, const char* schedule, int64_t threads,
                         int64_t actors = 1) {
    configs::Config config;
    config.run.roles = configs::FromName<configs::Roles>(roles).value();
    config.run.schedule = configs::FromName<configs::Schedule>(schedule).value();
    config.run.threads = threads;
    config.run.actors = actors;
    const ThreadShares s = ThreadSharesOf(config);
    return std::pair(s.learner, s.actor);
  };
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  EXPECT_EQ(shares("local", "sync", 8), std::pair(8, 8)) << "they take turns";
  EXPECT_EQ(shares("local", "sync", 0), std::pair(cores, cores));
  EXPECT_EQ(shares("local", "async", 8), std::pair(4, 4));
  EXPECT_EQ(shares("local", "async", 5), std::pair(3, 2));
  EXPECT_EQ(shares("local", "async", 1), std::pair(1, 1));
  EXPECT_EQ(shares("processes", "async", 8, 2), std::pair(8, 8)) << "in each process";
  EXPECT_EQ(shares("processes", "sync", 0, 2), std::pair(cores, std::max(1, cores / 2)));
  EXPECT_EQ(shares("processes", "async", 0, 2),
            std::pair(cores - cores / 2, std::max(1, cores / 4)));
}

// Two roles that are threads of one process: each computes with what it was given, whichever spoke
// last.
TEST(RingOptions, AThreadKeepsItsShareWhateverOthersUse) {
  policy_model::SetThreads(2);
  std::atomic<int> said{0};
  std::vector<int> used(3);
  std::vector<std::thread> roles;
  for (const int share : {1, 3}) {
    roles.emplace_back([&, share] {
      policy_model::UseThreads(share);
      ++said;
      while (said.load() < 2) std::this_thread::yield();
      used[static_cast<size_t>(share / 2)] = policy_model::Threads();
    });
  }
  for (std::thread& role : roles) role.join();
  std::thread([&] { used[2] = policy_model::Threads(); }).join();
  EXPECT_EQ(used, (std::vector<int>{1, 3, 2}))
      << "the third says nothing and has what the process has";
  policy_model::SetThreads(1);
}

// Three steps without a score end the run. Mended and resumed, their prompts are answered afresh,
// and it comes to its end.
TEST_F(RingTrain, ARunThatDiedOfItsRewardsGoesOnOnceTheyAreMended) {
  const std::string run = temp_ / "run";
  WriteReward(
      run,
      R"(if [ $step -ge 4 ]; then printf '{"id":%s,"error":"the server is away"}\n' $id; continue; fi)");
  EXPECT_EQ(Program(Line(run, 9)), kExitRewardFailed) << Said();
  EXPECT_EQ(Program(Line(run, 9, {"--resume"})), kExitRewardFailed)
      << Said() << ": nothing is mended yet";
  WriteReward(run, ":");
  ASSERT_EQ(Program(Line(run, 9, {"--resume"})), 0) << Said();
  const auto lines = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 9u);
  for (const auto& line : lines) EXPECT_GT(line["reward/mean"].get<double>(), 0) << line["step"];
  EXPECT_GT(Counter(run, "reopened/unscored"), 0);
}

// Killed between two checkpoints and resumed for another number of steps under a schedule, the
// weights are other ones from the step behind the checkpoint on. What the old ones had sampled is
// sampled again: nothing off-policy counts as on-policy. With the number of steps as it was,
// everything stays, bit for bit.
TEST_F(RingTrain, ALearnerWithOtherWeightsHasItsGroupsSampledAgain) {
  // A rule of this process: where a crash point is armed, the run is not a program of its own.
  const std::vector<std::string> cosine = {
      "--set", "optimizer.lr_schedule=cosine", "--set", "run.checkpoint_every=4",
      "--set", "reward.parts.0.kind=length",   "--set", "reward.parts.0.path=",
      "--set", "reward.parts.0.args=[]",       "--set", "reward.parts.0.target_tokens=1",
      "--set", "reward.parts.0.max_tokens=9"};
  const std::string whole = temp_ / "whole";
  ASSERT_EQ(RunPlumb(Line(whole, 8, cosine)).code, 0);
  for (const int64_t steps : {8, 24}) {
    const std::string run = temp_ / ("killed" + std::to_string(steps));
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ArmCrashPointForTest("before_update", 8);  // of step 7; the checkpoint is that of step 4
      RunPlumb(Line(run, 8, cosine));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it was to be killed";
    std::vector<std::string> more = cosine;
    more.push_back("--resume");
    const auto resumed = RunPlumb(Line(run, steps, more));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    if (steps == 8) {
      ExpectSameRun(whole, run);
      EXPECT_EQ(Counter(run, "reopened/other_weights"), 0);
      continue;
    }
    EXPECT_GE(Counter(run, "reopened/other_weights"), 4) << "of the steps 5, 6 and 7";
    for (const auto& line : Lines(run + "/metrics.jsonl")) {
      EXPECT_LT(line["sampling/logprob_diff_mean"].get<double>(), 1e-5) << line["step"];
      EXPECT_EQ(line["offpolicy/staleness_max"].get<double>(), 0) << line["step"];
    }
  }
}

// One answer whose reward takes as long as the rest of the run: under async the steps go on without
// its group, which is too old when it comes, is counted, and answered again for the last step.
TEST_F(RingTrain, AStragglerHoldsUpNoStepButTheLastUnderAsync) {
  const std::string run = temp_ / "run";
  std::string rows;
  for (int row = 0; row < 16; ++row)
    rows += "{\"prompt\":\"" + std::to_string(row) + "+1=\",\"ground_truth\":\"?\"}\n";
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", rows);
  // One answer to the first prompt waits until five steps are done.
  WriteReward(run,
              "case $line in *'\"prompt\":\"0+1=\"'*'\"sample\":0,'*)\n"
              "    while n=0; while read -r _; do n=$((n + 1)); done < '" +
                  run +
                  "/metrics.jsonl'; [ $n -lt 5 ]; do sleep 0.05; done;;\n"
                  "  esac 2>/dev/null");
  ASSERT_EQ(Program(Line(run, 8,
                         {"--set", "run.schedule=async", "--set", "run.max_staleness=2", "--set",
                          "reward.parts.0.workers=4", "--set",
                          "data.train=" + (temp_ / "rows.jsonl"), "--set", "data.shuffle=false"})),
            0)
      << Said();
  EXPECT_EQ(Lines(run + "/metrics.jsonl").size(), 8u);
  EXPECT_GE(Counter(run, "refused/stale"), 1);
}

// Killed behind its choice and resumed, a run under async trains on the groups that it had chosen.
TEST_F(RingTrain, AResumedRunUnderAsyncTrainsOnTheSameGroups) {
  const std::string run = temp_ / "run";
  const std::vector<std::string> async = {
      "--set", "run.schedule=async",         "--set", "run.max_staleness=2",
      "--set", "run.checkpoint_every=2",     "--set", "replay.keep_steps=-1",
      "--set", "reward.parts.0.kind=length", "--set", "reward.parts.0.path=",
      "--set", "reward.parts.0.args=[]",     "--set", "reward.parts.0.target_tokens=1",
      "--set", "reward.parts.0.max_tokens=9"};
  const auto plans = [&] {
    return replay::Store::Open(run + "/store", {.read_only = true})->Plans();
  };
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ArmCrashPointForTest("before_update", 6);  // of step 5; the checkpoint is that of step 4
    RunPlumb(Line(run, 8, async));
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "it was to be killed";
  const auto before = plans();
  ASSERT_EQ(before.size(), 6u);
  std::vector<std::string> more = async;
  more.push_back("--resume");
  const auto resumed = RunPlumb(Line(run, 8, more));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  const auto after = plans();
  ASSERT_EQ(after.size(), 8u);
  std::set<uint64_t> trained;
  for (const auto& [step, plan] : after) {
    if (before.contains(step)) {
      EXPECT_EQ(plan, before.at(step)) << step;
    }
    trained.insert(plan.chosen.begin(), plan.chosen.end());
  }
  EXPECT_EQ(trained.size(), 16u) << "every prompt once";
  for (const auto& line : Lines(run + "/metrics.jsonl")) {
    EXPECT_LE(line["offpolicy/staleness_max"].get<double>(), 2) << line["step"];
    // The histogram is that of the batch's groups.
    double groups = 0, sum = 0;
    for (const int versions : {0, 1, 2}) {
      const double here = line["offpolicy/staleness_" + std::to_string(versions)].get<double>();
      groups += here;
      sum += here * versions;
    }
    EXPECT_EQ(groups, 2) << line["step"];
    EXPECT_EQ(sum / groups, line["offpolicy/staleness_mean"].get<double>()) << line["step"];
  }
}

// A stop while the learner waits for a batch gives the wait up: the steps that were done are saved,
// and the run ends as one that was interrupted, whoever it waited for.
TEST_F(RingTrain, AStopInAWaitSavesTheStepsThatWereDone) {
  const std::string run = temp_ / "run";
  WriteReward(run, R"(case $step$line in [01]*) ;; *'"sample":0,'*) sleep 8 ;; esac)");
  const pid_t child =
      StartProgram(Line(run, 50, {"--roles", "processes", "--set", "run.checkpoint_every=0"}), run);
  ASSERT_GT(child, 0);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  int64_t done = 0;
  while (done < 2 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!RealFileSystem().Exists(run + "/metrics.jsonl")) continue;
    const std::string metrics = Read(run + "/metrics.jsonl");
    done = std::count(metrics.begin(), metrics.end(), '\n');
  }
  ASSERT_EQ(done, 2) << Read(run + ".out");
  ::kill(child, SIGTERM);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kExitFewerSteps)
      << status << ": " << Read(run + ".out");
  EXPECT_TRUE(RealFileSystem().Exists(run + "/checkpoints/step-00000002/manifest.json"))
      << Read(run + ".out");
  WriteReward(run, ":");
  EXPECT_EQ(Program(Line(run, 4, {"--resume"})), 0) << Said();
  EXPECT_EQ(Lines(run + "/metrics.jsonl").size(), 4u);
}

}  // namespace
}  // namespace plumb::run
