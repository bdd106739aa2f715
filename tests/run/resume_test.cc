// Runs that are taken up again with another recipe: what may change is said, recorded and used;
// what may not changes nothing.
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/crash_point.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;

// Of the run's own recipe, as the documents say it.
CliOutput Resume(const std::string& run, std::vector<std::string> more) {
  more.insert(more.begin(), {"train", run + "/config.toml", "--out", run, "--resume"});
  return RunPlumb(more);
}

TEST(ResumeRunTest, TheRunsOwnRecipeNeedsNoOtherOptions) {
  const TempFolder temp;
  const std::vector<std::string> constant = {"--set", "optimizer.lr_schedule=constant",
                                             "--set", "optimizer.warmup_fraction=0",
                                             "--set", "checkpoint.optimizer=always"};
  ASSERT_EQ(Train(temp / "whole", 4, constant).code, 0);
  ASSERT_EQ(Train(temp / "run", 2, constant).code, 0);
  const CliOutput resumed = Resume(temp / "run", {"--steps", "4"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  ExpectSameRun(temp / "whole", temp / "run");
  EXPECT_TRUE(Has(resumed.out, "from step 2 on: run.steps = 4 (so far 2)")) << resumed.out;
  EXPECT_FALSE(Has(resumed.out, "learning rate")) << "it stays what it was";
}

TEST(ResumeRunTest, OfARunThatHasEndedLeavesItsSummary) {
  const TempFolder temp;
  const std::string run = temp / "run";
  for (const char* keep : {"until_end", "never"}) {
    ASSERT_EQ(
        Train(run, 3, {"--overwrite", "--set", std::string("checkpoint.optimizer=") + keep}).code,
        0);
    const std::string summary = Read(run + "/summary.json");
    const CliOutput ended = Resume(run, {});
    ASSERT_EQ(ended.code, 0);
    EXPECT_TRUE(Has(ended.out, "this run is finished: 3 of 3 steps are done")) << ended.out;
    EXPECT_TRUE(Has(ended.out, " train --resume --out " + run + " --steps 6")) << ended.out;
    EXPECT_FALSE(Has(ended.out, "training") || Has(ended.out, "held-out")) << ended.out;
    EXPECT_EQ(Read(run + "/summary.json"), summary);

    const CliOutput fewer = Resume(run, {"--steps", "2"});
    EXPECT_EQ(fewer.code, 2);
    EXPECT_TRUE(Has(fewer.err, "run.steps = 2, but 3 steps are done")) << fewer.err;
    EXPECT_EQ(Read(run + "/summary.json"), summary);

    // Killed behind the last checkpoint and before the summary.
    std::filesystem::remove(run + "/summary.json");
    ASSERT_EQ(Resume(run, {}).code, 0);
    for (const char* key : {"policy_digest", "weights_sha256", "optimizer_sha256", "steps"})
      EXPECT_EQ(nlohmann::json::parse(Read(run + "/summary.json"))[key],
                nlohmann::json::parse(summary)[key])
          << keep << " " << key;
  }
}

// A life that was killed between the two files of the tokenizer.
TEST(ResumeRunTest, WhatATokenizersFolderLacksIsWrittenAgain) {
  const TempFolder temp;
  const std::string run = temp / "run", config = "/tokenizer_config.json";
  ASSERT_EQ(Train(run, 2).code, 0);
  const std::string written = Read(run + "/tokenizer" + config);
  std::filesystem::remove(run + "/tokenizer" + config);
  ASSERT_EQ(Resume(run, {"--steps", "3"}).code, 0);
  EXPECT_EQ(Read(run + "/tokenizer" + config), written);
  EXPECT_EQ(Read(run + "/model" + config), written);
}

// What roles count begins at 0 in each life: the run's totals do not.
TEST(ResumeRunTest, CountersGoOn) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const std::vector<std::string> constant = {"--set", "optimizer.lr_schedule=constant"};
  ASSERT_EQ(Train(run, 3, constant).code, 0);
  ASSERT_EQ(Resume(run, {"--steps", "5"}).code, 0);
  const auto metrics = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 5u);
  for (const char* name : {"actor/leases", "actor/groups_delivered", "reward/groups",
                           "replay/inserts", "replay/leased"}) {
    ASSERT_TRUE(metrics[2].contains(name)) << name;
    const auto at = [&](size_t step) { return metrics[step][name].get<double>(); };
    for (size_t step = 1; step < metrics.size(); ++step)
      EXPECT_GE(at(step), at(step - 1)) << name << " at step " << step;
    EXPECT_LE(at(3) - at(2), at(2)) << name << ": all that was before is counted once more";
    const auto summary = nlohmann::json::parse(Read(run + "/summary.json"))["counters"];
    const std::string its = std::string(name).starts_with("replay/") ? name + 7 : name;
    EXPECT_GE(summary[its].get<double>(), at(4)) << name << ": the whole run's";
  }
}

TEST(ResumeRunTest, ALowerRateIsSaidRecordedAndUsed) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(
      Train(run, 2,
            {"--set", "optimizer.lr_schedule=constant", "--set", "optimizer.warmup_fraction=0"})
          .code,
      0);
  const CliOutput resumed = Resume(
      run, {"--steps", "4", "--set", "optimizer.learning_rate=1e-5", "--set", "rollout.max_batch=3",
            "--set", "optimizer.micro_batch_tokens=64", "--set", "rollout.kv_budget_mb=32"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* said : {"from step 2 on: optimizer.learning_rate = 1e-05 (so far ",
                           "rollout.max_batch = 3", "learning rate of step 2: 1e-05, not "}) {
    EXPECT_TRUE(Has(resumed.out, said)) << said << ": " << resumed.out;
    EXPECT_TRUE(Has(Read(run + "/logs/train.log"), said)) << said;
  }
  const auto metrics = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 4u);
  EXPECT_DOUBLE_EQ(metrics[3]["optim/lr"].get<double>(), 1e-5);
  EXPECT_GT(metrics[1]["optim/lr"].get<double>(), 1e-5);
  const auto changes = Lines(run + "/changes.jsonl");
  ASSERT_EQ(changes.size(), 5u);
  for (const auto& change : changes) EXPECT_EQ(change["step"], 2);
  EXPECT_TRUE(Has(Read(run + "/report.html"),
                  "from step 2 on &quot;optimizer.learning_rate&quot; is &quot;1e-05&quot;"));
  // The next life has the changed recipe as its own.
  EXPECT_EQ(Resume(run, {}).code, 0);
  EXPECT_EQ(Lines(run + "/changes.jsonl").size(), 5u);
}

// A longer run under a schedule that goes by the number of steps has another rate from here on:
// never without a word.
TEST(ResumeRunTest, ALongerCosineRunSaysThatTheRateJumps) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(Train(run, 2,
                  {"--set", "optimizer.lr_schedule=cosine", "--set", "optimizer.warmup_fraction=0",
                   "--set", "optimizer.learning_rate=1e-3", "--set", "optimizer.min_lr_fraction=0"})
                .code,
            0);
  const CliOutput resumed = Resume(run, {"--steps", "4"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(Has(resumed.out, "learning rate of step 2: 0.0005, not 0 as")) << resumed.out;
}

// Killed in the middle of a ramp of batches, in one process or several: the leases of each step
// are those of the run that nothing happened to.
TEST(ResumeRunTest, ABatchThatGrowsGoesOnWhereItWas) {
  const TempFolder temp;
  const std::vector<std::string> ramp = {"--set", "optimizer.ramp_steps=4", "--set",
                                         "optimizer.ramp_start=0.25"};
  const CliOutput all = Train(temp / "short", 2, ramp);
  EXPECT_TRUE(
      Has(all.out, "(the first step 1, the last 1: optimizer.ramp_steps = 4 reaches to the end)"))
      << all.out;
  ASSERT_EQ(Train(temp / "whole", 6, ramp).code, 0);
  const auto metrics = Lines(temp / "whole/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 6u);
  double groups = 0;
  for (const size_t step : {0, 1, 2, 3, 4, 5}) {
    groups += std::vector<double>{1, 1, 2, 3, 4, 4}[step];
    EXPECT_EQ(metrics[step]["replay/inserts"].get<double>() - 10, groups) << step;
  }
  const std::string run = temp / "killed";
  const pid_t child = fork();
  if (child == 0) {
    ArmCrashPointForTest("before_update", 4);
    RunPlumb(TrainLine(run, 6, ramp));
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  const CliOutput other = Resume(run, {"--set", "optimizer.ramp_steps=2"});
  EXPECT_EQ(other.code, 2) << other.err;
  const CliOutput resumed = Resume(run, {});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(Has(resumed.out, "the first step 1 prompts, all from step 5 on")) << resumed.out;
  ExpectSameRun(temp / "whole", run);
}

// Killed behind the checkpoint of step 4, which has no optimizer: step 2 is gone on from, bit for
// bit, and step 4 only when asked.
TEST(ResumeRunTest, OneWithoutAnOptimizerIsTakenOnlyWhenAsked) {
  const TempFolder temp;
  const std::vector<std::string> apart = {"--set", "checkpoint.optimizer_every=3"};
  ASSERT_EQ(Train(temp / "whole", 6, apart).code, 0);
  for (const bool newest : {false, true}) {
    const std::string run = temp / (newest ? "newest" : "exact");
    const pid_t child = fork();
    if (child == 0) {
      ArmCrashPointForTest("after_checkpoint", 3);  // of the warm start, step 2, step 4
      RunPlumb(TrainLine(run, 6, apart));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ASSERT_TRUE(RealFileSystem().Exists(run + "/checkpoints/step-00000004/manifest.json"));
    std::vector<std::string> more = {"--set", "metrics.samples_every=3"};
    if (newest) more.push_back("--newest");
    const CliOutput resumed = Resume(run, more);
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    const std::string log = Read(run + "/logs/train.log");
    EXPECT_EQ(Has(log, "the checkpoint of step 4 is newer but holds no optimizer"), !newest);
    EXPECT_EQ(Has(log, "resumed at step 4"), newest);
    EXPECT_TRUE(Has(resumed.out, std::string("from step ") + (newest ? "4" : "2") +
                                     " on: metrics.samples_every = 3"))
        << resumed.out;
    if (!newest) ExpectSameRun(temp / "whole", run);
  }
  EXPECT_EQ(RunPlumb({"train", temp / "whole.toml", "--newest"}).code, 2) << "it needs --resume";
}

TEST(ResumeRunTest, PposFixedKlCoefficientIsTheRecipes) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(Train(run, 1, {"--set", "algorithm.name=ppo"}).code, 0);
  ASSERT_EQ(Resume(run, {"--steps", "2", "--set", "algorithm.kl_coef=0.02"}).code, 0);
  const auto metrics = Lines(run + "/metrics.jsonl");
  EXPECT_DOUBLE_EQ(metrics[0]["objective/kl_coef"].get<double>(), 0.05);
  EXPECT_DOUBLE_EQ(metrics[1]["objective/kl_coef"].get<double>(), 0.02);
}

// Refused by the recipe, by the store, or by a file that is gone: the run is as it was.
TEST(ResumeRunTest, ARefusedResumeChangesNothing) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(Train(run, 2).code, 0);
  const std::string config = Read(run + "/config.toml"), identity = Read(run + "/run.json");
  const CliOutput recipe = Resume(run, {"--steps", "9", "--set", "run.seed=7"});
  EXPECT_EQ(recipe.code, 2);
  EXPECT_TRUE(Has(recipe.err, "run.seed: the run has") &&
              Has(recipe.err, "every random draw is keyed by it"))
      << recipe.err;
  EXPECT_EQ(Read(run + "/config.toml"), config);
  std::filesystem::rename(
      run + "/store", run + "/away");  // the checkpoint was made over more than a new store holds
  const CliOutput store = Resume(run, {"--steps", "9"});
  EXPECT_EQ(store.code, 4) << store.err;
  EXPECT_EQ(Read(run + "/config.toml"), config);
  EXPECT_EQ(Read(run + "/run.json"), identity);
  EXPECT_FALSE(RealFileSystem().Exists(run + "/changes.jsonl"));
}

TEST(ResumeRunTest, WhereNoRunIsIsAnErrorThatNamesTheFolder) {
  const TempFolder temp;
  const CliOutput output = Train(temp / "none", 2, {"--resume"});
  EXPECT_EQ(output.code, 3);
  EXPECT_TRUE(Has(output.err, temp / "none") && Has(output.err, "no run in this folder"))
      << output.err;
  EXPECT_FALSE(RealFileSystem().Exists(temp / "none"));
}

}  // namespace
}  // namespace plumb::run::testing
