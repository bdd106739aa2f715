// Mixtures of experts in whole runs. What bias and loss do to the load (configs/toy_moe.toml): each
// by itself evens it out, and without them it stays uneven. Learner processes that share out
// experts (docs/ranks.md): what they train is what one trains, offline and from rollouts, and any
// number of ranks goes on.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using Words = std::vector<std::string>;

int RunLine(const Words& line, const std::string& out) {
  const pid_t child = StartProgram(line, out);
  int status = 0;
  for (int i = 0; i < 12000 && waitpid(child, &status, WNOHANG) != child; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Words Join(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Words As(const std::string& parallel) {
  return {"--roles", "processes", "--set", "run.parallel=\"" + parallel + "\""};
}

Words SftLine(const std::string& out, int64_t steps, const Words& more) {
  Words line = {"train",   plumb::testing::SourcePath("configs/toy_moe.toml"),
                "--out",   out,
                "--steps", std::to_string(steps)};
  for (const char* set : {"run.checkpoint_every=3", "sft.batch=16", "eval.every=0",
                          "experts.aux_coef=0", "optimizer.micro_batch_tokens=128",
                          "optimizer.learning_rate=1e-3", "optimizer.lr_schedule=\"constant\"",
                          "optimizer.warmup_fraction=0", "checkpoint.optimizer=\"always\""})
    line.insert(line.end(), {"--set", set});
  return Join(line, more);
}

TEST(ExpertRanksTrainTest, RanksThatShareExpertsOutTrainWhatOneTrains) {
  const TempFolder temp;
  ASSERT_EQ(RunLine(SftLine(temp / "one", 8, {}), temp / "one"), 0) << Read(temp / "one.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 4, As("ep=2")), temp / "two"), 0)
      << Read(temp / "two.out");
  ASSERT_EQ(RunLine(SftLine(temp / "two", 8, Join(As("dp=2,ep=2"), {"--resume"})), temp / "two"), 0)
      << Read(temp / "two.out");
  const auto one = Lines(temp / "one/metrics.jsonl"), two = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(two.size(), 8u);
  for (size_t i = 0; i < two.size(); ++i) {
    for (const char* name : {"sft/loss", "moe/router_entropy", "moe/expert_load_max_over_mean"})
      EXPECT_NEAR(one[i][name].get<double>(), two[i][name].get<double>(), 1e-4) << name << i;
    EXPECT_GT(two[i]["moe/sent_bytes"].get<double>(), 0);
    EXPECT_GT(two[i]["time/experts_wait"].get<double>(), 0);
  }
  ASSERT_EQ(RunLine(SftLine(temp / "two", 9, {"--resume"}), temp / "two"), 0)
      << Read(temp / "two.out");
  EXPECT_EQ(Lines(temp / "two/metrics.jsonl").size(), 9u);
}

// Answers are generated from the whole, which is put together for every version.
TEST(ExpertRanksTrainTest, RolloutsOfAModelWhoseExpertsAreSharedOut) {
  const TempFolder temp;
  const Words experts = {"--set", "experts.count=4",       "--set", "experts.widths=[\"16\"]",
                         "--set", "algorithm.kl_coef=0.01"};
  ASSERT_EQ(
      RunLine(TrainLine(temp / "one", 3, Join(experts, {"--roles", "processes"})), temp / "one"), 0)
      << Read(temp / "one.out");
  ASSERT_EQ(RunLine(TrainLine(temp / "two", 3, Join(experts, As("ep=2"))), temp / "two"), 0)
      << Read(temp / "two.out");
  const auto one = Lines(temp / "one/metrics.jsonl"), two = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(two.size(), 3u);
  for (const char* name : {"policy/loss", "reward/mean", "optim/grad_norm", "policy/entropy"})
    EXPECT_NEAR(one[0][name].get<double>(), two[0][name].get<double>(), 1e-4) << name;
  EXPECT_LT(two[2]["sampling/logprob_diff_mean"].get<double>(), 1e-4);
}

TEST(ExpertRanksTrainTest, ThePlanKnowsWhoHasWhichExperts) {
  const auto plan = [](const Words& more) {
    const CliOutput out =
        RunPlumb(Join({"plan", plumb::testing::SourcePath("configs/toy_moe.toml"), "--set",
                       "run.memory_gb=8", "--set", "run.roles=\"processes\""},
                      more));
    return out.code == 0 ? out.out : out.err;
  };
  const std::string shared = plan({"--set", "run.parallel=\"dp=2,ep=2\""});
  EXPECT_TRUE(Has(shared, "with the experts of one of 2, ")) << shared;
  EXPECT_TRUE(Has(shared, "a part of 4, two") && Has(shared, "3 more with as much")) << shared;
  EXPECT_TRUE(Has(shared, "whole weights")) << shared;
  EXPECT_TRUE(Has(plan({"--set", "run.parallel=\"ep=3\""}), "has 8 experts a layer"));
}

// (largest - mean) / mean of the experts' tokens, in the layer where that is largest: mean of the
// last ten steps, for one step alone has a tenth of noise.
double SpreadAtTheEnd(const std::string& aux_coef, const std::string& bias_rate) {
  const plumb::testing::TempFolder temp;
  const auto trained =
      RunPlumb({"train", plumb::testing::SourcePath("configs/toy_moe.toml"), "--out", temp / "run",
                "--quiet", "--set", "run.threads=1", "--set", "experts.aux_coef=" + aux_coef,
                "--set", "experts.bias_rate=" + bias_rate});
  EXPECT_EQ(trained.code, 0) << trained.err;
  const auto steps = Lines(temp / "run/metrics.jsonl");
  double sum = 0;
  for (size_t i = steps.size() - 10; i < steps.size(); ++i)
    sum += steps[i]["moe/expert_load_max_over_mean"].get<double>() - 1;
  return sum / 10;
}

TEST(ExpertLoad, TheLossAloneEvensItOut) { EXPECT_LT(SpreadAtTheEnd("0.3", "0"), 0.15); }

TEST(ExpertLoad, TheBiasAloneEvensItOut) { EXPECT_LT(SpreadAtTheEnd("0", "0.001"), 0.12); }

TEST(ExpertLoad, WithoutThemItStaysUneven) { EXPECT_GT(SpreadAtTheEnd("0", "0"), 0.4); }

}  // namespace
}  // namespace plumb::run::testing
