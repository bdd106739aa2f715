// plumb train with several learner processes (docs/ranks.md): what they train is what one trains, a
// rank that is killed or hangs does not end the run, and each way of starting them.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using SteadyClock = std::chrono::steady_clock;

using Words = std::vector<std::string>;

const Words kTwoRanks = {"--roles", "processes", "--set", "run.parallel=\"dp=2\""};

Words SftLine(const std::string& out, int64_t steps, const Words& more = {}) {
  Words line = {"train",   plumb::testing::SourcePath("configs/toy_sft.toml"),
                "--out",   out,
                "--steps", std::to_string(steps)};
  for (const char* set : {"run.checkpoint_every=5", "sft.batch=16", "eval.every=0",
                          "optimizer.micro_batch_tokens=128", "optimizer.learning_rate=1e-3"})
    line.insert(line.end(), {"--set", set});
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

Words Join(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Exit code within two minutes; -1: killed by a signal, or by this.
int CodeOf(pid_t child) {
  const auto deadline = SteadyClock::now() + std::chrono::seconds(120);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) != child) {
    if (SteadyClock::now() > deadline) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int RunLine(const Words& line, const std::string& out) { return CodeOf(StartProgram(line, out)); }

bool Until(const std::function<bool()>& condition) {
  const auto deadline = SteadyClock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (SteadyClock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

size_t LinesOf(const std::string& run) {
  return RealFileSystem().Exists(run + "/metrics.jsonl") ? Lines(run + "/metrics.jsonl").size() : 0;
}

pid_t PidOf(const std::string& run, const std::string& role) {
  if (!RealFileSystem().Exists(run + "/pids.json")) return -1;
  const auto pids = nlohmann::json::parse(Read(run + "/pids.json"), nullptr, false);
  return pids.is_object() ? pids.value(role, -1) : -1;
}

void ExpectNear(const std::string& a, const std::string& b, const std::string& metric,
                double bound) {
  const auto x = Lines(a + "/metrics.jsonl"), y = Lines(b + "/metrics.jsonl");
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(x[i][metric].get<double>(), y[i][metric].get<double>(), bound) << metric << i;
}

TEST(RanksTrainTest, TwoProcessesTrainWhatOneTrains) {
  const TempFolder temp;
  ASSERT_EQ(RunLine(SftLine(temp / "one", 12), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 12, kTwoRanks), temp / "two"), 0)
      << Read(temp / "two.out");
  ExpectNear(temp / "one", temp / "two", "sft/loss", 1e-5);
  ExpectNear(temp / "one", temp / "two", "optim/grad_norm", 1e-3);
  const auto metrics = Lines(temp / "two/metrics.jsonl");
  EXPECT_GT(metrics[0]["ranks/sent_bytes"].get<double>(), 4.0 * 64 * 64);
  const auto summary = nlohmann::json::parse(Read(temp / "two/summary.json"));
  EXPECT_EQ(summary["steps"], 12);
  EXPECT_TRUE(Has(Read(temp / "two/logs/learner-1.log"), "rank 1 of 2"));
  // One process goes on with what two had begun.
  ASSERT_EQ(RunLine(SftLine(temp / "two", 14, {"--resume"}), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(LinesOf(temp / "two"), 14u);
}

// What each keeps and how gradients travel changes nothing that is trained, but for rounding;
// either may change with a resume.
TEST(RanksTrainTest, PartsOfTheOptimizerAndRoundedGradientsTrainTheSame) {
  const TempFolder temp;
  // Nothing that hangs on how many steps the run is to have.
  const Words steady =
      Join(kTwoRanks, {"--set", "optimizer.lr_schedule=\"constant\"", "--set",
                       "optimizer.warmup_fraction=0", "--set", "checkpoint.optimizer=\"always\""});
  const Words whole = Join(steady, {"--set", "run.zero=0"});
  ASSERT_EQ(RunLine(SftLine(temp / "whole", 10, whole), temp / "whole"), 0);
  ASSERT_EQ(RunLine(SftLine(temp / "parts", 5, steady), temp / "parts"), 0)
      << Read(temp / "parts.out");
  ASSERT_EQ(RunLine(SftLine(temp / "parts", 10, Join(whole, {"--resume"})), temp / "parts"), 0)
      << Read(temp / "parts.out");
  ExpectNear(temp / "whole", temp / "parts", "sft/loss", 1e-6);
  const Words bytes = Join(steady, {"--set", "run.gradient_wire=\"int8\""});
  ASSERT_EQ(RunLine(SftLine(temp / "bytes", 10, bytes), temp / "bytes"), 0)
      << Read(temp / "bytes.out");
  ExpectNear(temp / "whole", temp / "bytes", "sft/loss", 2e-2);
  const auto exact = Lines(temp / "whole/metrics.jsonl"), few = Lines(temp / "bytes/metrics.jsonl");
  EXPECT_LT(few[3]["ranks/sent_bytes"].get<double>(),
            0.64 * exact[3]["ranks/sent_bytes"].get<double>())
      << "5 of 8 bytes a parameter";
  EXPECT_NE(exact[9]["sft/loss"], few[9]["sft/loss"]);
}

// Gradients, and weights, in parts: the same losses; what one had begun another goes on with.
TEST(RanksTrainTest, PartsOfGradientsAndWeightsTrainTheSame) {
  const TempFolder temp;
  const Words steady =
      Join(kTwoRanks, {"--set", "optimizer.lr_schedule=\"constant\"", "--set",
                       "optimizer.warmup_fraction=0", "--set", "checkpoint.optimizer=\"always\""});
  const auto with = [&](const char* zero, const Words& more = {}) {
    return Join(Join(steady, {"--set", std::string("run.zero=") + zero}), more);
  };
  ASSERT_EQ(RunLine(SftLine(temp / "one", 10, with("1")), temp / "one"), 0);
  for (const std::string zero : {"2", "3"}) {
    const std::string out = temp / ("zero" + zero);
    ASSERT_EQ(RunLine(SftLine(out, 5, with(zero.c_str())), out), 0) << Read(out + ".out");
    ASSERT_EQ(RunLine(SftLine(out, 10, with(zero.c_str(), {"--resume"})), out), 0)
        << Read(out + ".out");
    ExpectNear(temp / "one", out, "sft/loss", 1e-5);
    const auto lines = Lines(out + "/metrics.jsonl");
    EXPECT_GT(lines[3]["time/ranks"].get<double>(), 0);
    EXPECT_GE(lines[3]["time/ranks_wait"].get<double>(), 0);
    EXPECT_GT(lines[3]["ranks/sent_bytes"].get<double>(), 4.0 * 64 * 64);
  }
  const std::string rollouts = temp / "rollouts";
  ASSERT_EQ(RunLine(TrainLine(rollouts, 2, with("2")), rollouts), 0) << Read(rollouts + ".out");
  const CliOutput refused = RunPlumb(TrainLine(temp / "no", 2, with("3")));
  EXPECT_TRUE(Has(refused.err, "run.zero: is 3")) << refused.err;
}

// Two ranks compute the model together, alone and beside two others: the same losses, a checkpoint
// that any number of them goes on with, and an evaluation of the same.
TEST(RanksTrainTest, AModelThatRanksComputeTogetherTrainsTheSame) {
  const TempFolder temp;
  const Words steady = {
      "--set", "optimizer.lr_schedule=\"constant\"", "--set", "optimizer.warmup_fraction=0",
      "--set", "checkpoint.optimizer=\"always\"",    "--set", "eval.every=2"};
  const auto as = [&](const char* parallel, const Words& more = {}) {
    return Join(Join(steady, {"--roles", "processes", "--set",
                              std::string("run.parallel=\"") + parallel + "\""}),
                more);
  };
  ASSERT_EQ(RunLine(SftLine(temp / "one", 10, steady), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 5, as("tp=2")), temp / "two"), 0)
      << Read(temp / "two.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 10, as("dp=2,tp=2", {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  ExpectNear(temp / "one", temp / "two", "sft/loss", 1e-5);
  ExpectNear(temp / "one", temp / "two", "optim/grad_norm", 1e-3);
  const auto metrics = Lines(temp / "two/metrics.jsonl");
  EXPECT_GT(metrics[2].at("ranks/sent_bytes").get<double>(), 0);
  EXPECT_NEAR(metrics[1].at("eval/loss").get<double>(),
              Lines(temp / "one/metrics.jsonl")[1].at("eval/loss").get<double>(), 1e-5);
  ASSERT_EQ(RunLine(SftLine(temp / "two", 12, Join(steady, {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(LinesOf(temp / "two"), 12u);
}

// Stages of a pipeline: the same losses, and a checkpoint that any number of ranks goes on with.
TEST(RanksTrainTest, StagesOfAPipelineTrainTheSame) {
  const TempFolder temp;
  const Words steady = {
      "--set", "optimizer.lr_schedule=\"constant\"", "--set", "optimizer.warmup_fraction=0",
      "--set", "checkpoint.optimizer=\"always\"",    "--set", "eval.every=2",
      "--set", "optimizer.micro_batch_tokens=128"};
  const auto as = [&](const char* parallel, const Words& more = {}) {
    return Join(Join(steady, {"--roles", "processes", "--set",
                              std::string("run.parallel=\"") + parallel + "\""}),
                more);
  };
  ASSERT_EQ(RunLine(SftLine(temp / "one", 10, steady), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 5, as("pp=2")), temp / "two"), 0)
      << Read(temp / "two.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 10, as("dp=2,pp=2", {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  ExpectNear(temp / "one", temp / "two", "sft/loss", 1e-5);
  ExpectNear(temp / "one", temp / "two", "optim/grad_norm", 1e-3);
  const auto metrics = Lines(temp / "two/metrics.jsonl");
  EXPECT_GT(metrics[2].at("ranks/sent_bytes").get<double>(), 0);
  EXPECT_GT(metrics[2].at("time/pipeline_wait").get<double>(), 0);
  ASSERT_EQ(RunLine(SftLine(temp / "two", 12, Join(steady, {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(LinesOf(temp / "two"), 12u);
}

TEST(RanksTrainTest, RolloutsOfStages) {
  const TempFolder temp;
  const Words alone = {"--roles", "processes",      "--set", "algorithm.kl_coef=0.01",
                       "--set",   "model.layers=2", "--set", "optimizer.micro_batch_tokens=128"};
  const Words stages = Join(alone, {"--set", "run.parallel=\"pp=2\""});
  ASSERT_EQ(RunLine(TrainLine(temp / "one", 3, alone), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 3, stages), temp / "two"), 0) << Read(temp / "two.out");
  const auto one = Lines(temp / "one/metrics.jsonl"), two = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(two.size(), 3u);
  for (const char* name : {"policy/loss", "reward/mean", "optim/grad_norm", "policy/entropy"})
    EXPECT_NEAR(one[0][name].get<double>(), two[0][name].get<double>(), 1e-4) << name;
  EXPECT_LT(two[2]["sampling/logprob_diff_mean"].get<double>(), 1e-4);
  // The reference comes back from the file of the whole.
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 4, Join(stages, {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(LinesOf(temp / "two"), 4u);
}

// Answers are generated from the whole, which is put together for every version.
TEST(RanksTrainTest, RolloutsOfAModelThatRanksComputeTogether) {
  const TempFolder temp;
  const Words together = {
      "--roles", "processes", "--set", "run.parallel=\"tp=2\"", "--set", "algorithm.kl_coef=0.01"};
  const Words alone = {"--roles", "processes", "--set", "algorithm.kl_coef=0.01"};
  ASSERT_EQ(RunLine(TrainLine(temp / "one", 3, alone), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 3, together), temp / "two"), 0)
      << Read(temp / "two.out");
  const auto one = Lines(temp / "one/metrics.jsonl"), two = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(two.size(), 3u);
  for (const char* name : {"policy/loss", "reward/mean", "optim/grad_norm", "policy/entropy"})
    EXPECT_NEAR(one[0][name].get<double>(), two[0][name].get<double>(), 1e-4) << name;
  EXPECT_LT(two[2]["sampling/logprob_diff_mean"].get<double>(), 1e-4);
  // The reference comes back from the file of the whole.
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 4, Join(together, {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(LinesOf(temp / "two"), 4u);
}

TEST(RanksTrainTest, ThePlanReckonsWithRanks) {
  const auto plan = [](const Words& more) {
    Words line = {"plan", plumb::testing::SourcePath("configs/toy_sft.toml"), "--set",
                  "run.memory_gb=8"};
    const CliOutput out = RunPlumb(Join(line, more));
    EXPECT_EQ(out.code, 0) << out.err;
    return out.out;
  };
  EXPECT_FALSE(Has(plan({}), "other ranks"));
  const Words four = {"--set", "run.roles=\"processes\"", "--set", "run.parallel=\"dp=4\""};
  const std::string parts = plan(four);
  EXPECT_TRUE(Has(parts, "other ranks")) << parts;
  EXPECT_TRUE(Has(parts, "3 more with as much")) << parts;
  EXPECT_TRUE(Has(parts, "a part of 4, two, float32")) << parts;
  EXPECT_FALSE(Has(plan(Join(four, {"--set", "run.zero=0"})), "a part of 4"));
  const std::string weights = plan(Join(four, {"--set", "run.zero=3"}));
  EXPECT_TRUE(Has(weights, "a part of 4 and rooms for layers")) << weights;
  EXPECT_TRUE(Has(weights, "whole weights")) << weights;
  const std::string share =
      plan({"--set", "run.roles=\"processes\"", "--set", "run.parallel=\"dp=2,tp=2\""});
  EXPECT_TRUE(Has(share, "the share of one of 2, ") && Has(share, "a part of 2, two")) << share;
  EXPECT_TRUE(Has(share, "whole weights") && Has(share, "3 more with as much")) << share;
  const std::string stage =
      plan({"--set", "run.roles=\"processes\"", "--set", "run.parallel=\"dp=2,pp=2\""});
  EXPECT_TRUE(Has(stage, "of 2, layers ") && Has(stage, "a part of 2, two")) << stage;
  EXPECT_FALSE(Has(stage, "optimizer.moments")) << "no advice that is refused: " << stage;
}

TEST(RanksTrainTest, ARankThatIsKilledIsStartedAgainWithTheOthers) {
  const TempFolder temp;
  ASSERT_EQ(RunLine(SftLine(temp / "whole", 60, kTwoRanks), temp / "whole"), 0)
      << Read(temp / "whole.out");
  for (const std::string role : {"learner-1", "learner"}) {
    const std::string out = temp / role;
    const pid_t program = StartProgram(SftLine(out, 60, kTwoRanks), out);
    ASSERT_TRUE(Until([&] { return LinesOf(out) >= 12; })) << Read(out + ".out");
    const pid_t victim = PidOf(out, role);
    ASSERT_GT(victim, 0);
    kill(victim, SIGKILL);
    EXPECT_EQ(CodeOf(program), 0) << Read(out + ".out");
    EXPECT_EQ(LinesOf(out), 60u);
    const auto first = nlohmann::json::parse(Read(temp / "whole/summary.json")),
               second = nlohmann::json::parse(Read(out + "/summary.json"));
    for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
      EXPECT_EQ(first[hash], second[hash]) << role << " " << hash;
    EXPECT_TRUE(Has(Read(out + ".out"), "roles started again: ")) << Read(out + ".out");
  }
}

TEST(RanksTrainTest, ARankThatHangsIsNamedAndEnded) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const pid_t program =
      StartProgram(SftLine(out, 400, Join(kTwoRanks, {"--set", "run.stall_seconds=2"})), out);
  ASSERT_TRUE(Until([&] { return LinesOf(out) >= 6; })) << Read(out + ".out");
  kill(PidOf(out, "learner-1"), SIGSTOP);
  // Rank 0 gives up after 2 s and saves; half a minute later the one that hangs is killed.
  ASSERT_TRUE(Until([&] { return Has(Read(out + "/logs/learner.log"), "for rank 1 of 2"); }))
      << Read(out + "/logs/learner.log");
  EXPECT_TRUE(Has(Read(out + "/logs/learner.log"), "run.stall_seconds"));
  kill(program, SIGKILL);
  CodeOf(program);
}

TEST(RanksTrainTest, CtrlCEndsAllRanksBehindTheStep) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const pid_t program = StartProgram(SftLine(out, 4000, kTwoRanks), out);
  ASSERT_TRUE(Until([&] { return LinesOf(out) >= 4; })) << Read(out + ".out");
  const pid_t rank = PidOf(out, "learner-1");
  kill(program, SIGINT);
  EXPECT_EQ(CodeOf(program), 7) << Read(out + ".out");
  EXPECT_NE(kill(rank, 0), 0) << "rank 1 is still there";
  const size_t done = LinesOf(out);
  EXPECT_TRUE(Has(Read(out + ".out"), "trained " + std::to_string(done) + " of 4000 steps"))
      << Read(out + ".out");
  ASSERT_EQ(
      RunLine(SftLine(out, static_cast<int64_t>(done) + 2, Join(kTwoRanks, {"--resume"})), out), 0)
      << Read(out + ".out");
  EXPECT_EQ(LinesOf(out), done + 2);
}

// Whatever the ranks have come to: not yet started, waiting for each other, loading, training.
// Counted from when the run is there: a program that is still being loaded is ended by the signal.
TEST(RanksTrainTest, CtrlCEndsRanksThatHaveJustBegun) {
  for (const int after_ms : {0, 150, 300, 500, 900}) {
    const TempFolder temp;
    const pid_t program = StartProgram(SftLine(temp / "run", 4000, kTwoRanks), temp / "run");
    ASSERT_TRUE(Until([&] { return RealFileSystem().Exists(temp / "run/config.toml"); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(after_ms));
    const auto begin = SteadyClock::now();
    kill(program, SIGINT);
    EXPECT_EQ(CodeOf(program), 7) << after_ms << Read(temp / "run.out");
    EXPECT_LT(SteadyClock::now() - begin, std::chrono::seconds(12)) << after_ms;
    EXPECT_FALSE(Has(Read(temp / "run.out"), "killed")) << Read(temp / "run.out");
  }
}

// Most checkpoints lack the optimizer's state, of which each rank has a part.
TEST(RanksTrainTest, CheckpointsWithoutTheOptimizerChangeNothing) {
  const TempFolder temp;
  const Words steady = Join(kTwoRanks, {"--set", "optimizer.lr_schedule=\"constant\"", "--set",
                                        "optimizer.warmup_fraction=0", "--set", "run.zero=1"});
  const auto digest = [&](const std::string& run) {
    return nlohmann::json::parse(Read(temp / run + "/summary.json"))["weights_sha256"];
  };
  const auto train = [&](const std::string& run, int64_t steps, const Words& more) {
    const std::string out = temp / run;
    EXPECT_EQ(RunLine(SftLine(out, steps, Join(steady, more)), out), 0) << Read(out + ".out");
    EXPECT_EQ(LinesOf(out), static_cast<size_t>(steps));
  };
  train("whole", 6, {});
  const Words seldom = {"--set", "run.checkpoint_every=1", "--set", "checkpoint.optimizer_every=2"};
  train("seldom", 6, seldom);
  EXPECT_EQ(digest("seldom"), digest("whole"));
  // Goes on from that of the end, which has it.
  const Words kept = Join(seldom, {"--set", "checkpoint.optimizer=\"always\""});
  train("broken", 4, kept);
  train("broken", 6, Join(kept, {"--resume"}));
  EXPECT_EQ(digest("broken"), digest("whole"));
  const Words never = Join(seldom, {"--set", "checkpoint.optimizer=\"never\""});
  train("never", 6, never);
  EXPECT_EQ(digest("never"), digest("whole"));
  train("never", 8, Join(never, {"--resume"}));
}

TEST(RanksTrainTest, RolloutsAreSharedAmongRanks) {
  const TempFolder temp;
  ASSERT_EQ(RunLine(TrainLine(temp / "one", 3, {"--roles", "processes"}), temp / "one"), 0)
      << Read(temp / "one.out");
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 3, kTwoRanks), temp / "two"), 0)
      << Read(temp / "two.out");
  // The warm start and the first step: later answers are drawn from weights that differ in bits.
  const auto one = Lines(temp / "one/metrics.jsonl"), two = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(two.size(), 3u);
  for (const char* name : {"policy/loss", "reward/mean", "optim/grad_norm", "policy/entropy"})
    EXPECT_NEAR(one[0][name].get<double>(), two[0][name].get<double>(), 1e-4) << name;
  EXPECT_LT(two[2]["sampling/logprob_diff_mean"].get<double>(), 1e-4);
}

int FreePort() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  PLUMB_CHECK(bind(probe, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
              getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(probe);
  return ntohs(address.sin_port);
}

// As torchrun, Slurm or Kubernetes would start them.
std::vector<pid_t> StartByEnvironment(const std::function<Words(int rank)>& line, int size,
                                      const std::string& out) {
  const std::string port = std::to_string(FreePort());
  std::vector<pid_t> out_pids;
  for (int rank = 0; rank < size; ++rank) {
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", port.c_str(), 1);
    setenv("RANK", std::to_string(rank).c_str(), 1);
    setenv("WORLD_SIZE", std::to_string(size).c_str(), 1);
    setenv("LOCAL_RANK", std::to_string(rank).c_str(), 1);
    out_pids.push_back(StartProgram(line(rank), out + "-" + std::to_string(rank)));
  }
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"})
    unsetenv(name);
  return out_pids;
}

TEST(RanksTrainTest, RanksThatSomebodyElseStartsMeetByTheEnvironment) {
  const TempFolder temp;
  const std::string out = temp / "run";
  ASSERT_EQ(RunLine(SftLine(temp / "two", 6, kTwoRanks), temp / "two"), 0)
      << Read(temp / "two.out");
  const auto ranks = StartByEnvironment([&](int) { return SftLine(out, 6); }, 2, out);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(CodeOf(ranks[static_cast<size_t>(rank)]), 0)
        << Read(out + "-" + std::to_string(rank) + ".out");
  }
  const auto first = nlohmann::json::parse(Read(temp / "two/summary.json")),
             second = nlohmann::json::parse(Read(out + "/summary.json"));
  EXPECT_EQ(first["weights_sha256"], second["weights_sha256"]);
  // Rollouts, in the process of rank 0.
  const std::string rollouts = temp / "rollouts";
  for (const pid_t rank :
       StartByEnvironment([&](int) { return TrainLine(rollouts, 2, {}); }, 2, rollouts))
    EXPECT_EQ(CodeOf(rank), 0) << Read(rollouts + "-0.out") << Read(rollouts + "-1.out");
  EXPECT_EQ(LinesOf(rollouts), 2u);
}

TEST(RanksTrainTest, ARankThatCannotBeginTellsTheOthers) {
  const TempFolder temp;
  const std::string out = temp / "run";
  ASSERT_EQ(RunLine(SftLine(out, 2), out), 0);
  // The folder has a run: rank 0 refuses, the other says what rank 0 said.
  const auto ranks = StartByEnvironment([&](int) { return SftLine(out, 6); }, 2, out);
  EXPECT_EQ(CodeOf(ranks[0]), 2);
  EXPECT_EQ(CodeOf(ranks[1]), 11);
  EXPECT_TRUE(Has(Read(out + "-1.out"), "rank 0 ended: ")) << Read(out + "-1.out");
}

TEST(RanksTrainTest, ARankWithAnotherRecipeIsRefused) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const auto ranks = StartByEnvironment(
      [&](int rank) {
        return SftLine(out, 4, {"--set", "run.seed=" + std::to_string(5 + rank)});
      },
      2, out);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(CodeOf(ranks[static_cast<size_t>(rank)]), 2);
    const std::string said = Read(out + "-" + std::to_string(rank) + ".out");
    EXPECT_TRUE(Has(said, "run.seed: is 6 for rank 1 and 5 for rank 0")) << said;
  }
  EXPECT_FALSE(RealFileSystem().Exists(out)) << "nothing was begun";
}

TEST(RanksTrainTest, WhatCannotBeIsSaid) {
  const TempFolder temp;
  const auto error_of = [&](const Words& more) {
    const CliOutput run = RunPlumb(SftLine(temp / "run", 2, more));
    return std::to_string(run.code) + " " + run.err;
  };
  EXPECT_TRUE(Has(error_of({"--set", "run.parallel=\"dp=2\""}), "docs/ranks.md"));
  const std::string both =
      error_of({"--roles", "processes", "--set", "run.parallel=\"tp=2,pp=2\""});
  EXPECT_TRUE(both.starts_with("9 ") && Has(both, "asks for pp=2") && Has(both, "leave tp out"))
      << both;
  EXPECT_TRUE(Has(error_of({"--roles", "processes"}), "has none, use local"));
  setenv("WORLD_SIZE", "3", 1);
  EXPECT_TRUE(Has(error_of({}), "is not set, but WORLD_SIZE is 3"));
  setenv("RANK", "1", 1);
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", "1", 1);
  EXPECT_TRUE(Has(error_of({"--set", "run.parallel=\"dp=2\""}), "but WORLD_SIZE says 3"));
  EXPECT_TRUE(Has(error_of({"--roles", "processes", "--set", "run.parallel=\"dp=3\""}),
                  "use local, so that rank 0 runs the other roles"));
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"}) unsetenv(name);
}

}  // namespace
}  // namespace plumb::run::testing
