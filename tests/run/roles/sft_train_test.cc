// plumb train with algorithm.name = "sft" (run/roles/offline_roles.cc,
// run/session/demonstration_data.h): from sums, files and stores, resumed, with an adapter, and
// what it says of wrong input.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "run/roles/observer.h"
#include "run/session/demonstration_data.h"
#include "run/session/generated_sums.h"
#include "run/session/offline_source.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::SourcePath;
using plumb::testing::TempFolder;
using testing::Has;
using testing::Lines;
using testing::Read;
using testing::RunPlumb;

std::vector<std::string> Line(const std::string& out, int64_t steps,
                              const std::vector<std::string>& sets = {},
                              const std::vector<std::string>& more = {}) {
  std::vector<std::string> line = {
      "train", SourcePath("configs/toy_sft.toml"), "--out", out, "--steps", std::to_string(steps)};
  for (const std::string& set : sets) line.insert(line.end(), {"--set", set});
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(Read(run + "/summary.json"));
}

// Sums as prompts and completions.
std::string Rows(const std::string& path, int sums) {
  std::string text;
  for (int i = 0; i < sums; ++i) {
    text += "{\"prompt\": \"" + std::to_string(i) + "+1=\", \"completion\": \"" +
            std::to_string(i + 1) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(path, text);
  return path;
}

TEST(SftTrainTest, TheToyRecipeLearnsToWriteSumsOut) {
  const TempFolder temp;
  const auto run = RunPlumb(Line(temp / "run", 150));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto eval = Summary(temp / "run")["eval"];
  const double before = eval["before"]["loss"], after = eval["after"]["loss"];
  EXPECT_GT(before, 2.5);
  EXPECT_LT(after, 0.8);
  EXPECT_EQ(eval["after"]["perplexity"].get<double>(), std::exp(after));
  EXPECT_EQ(eval["after"]["answers"], 40) << "a tenth of 400";
  EXPECT_FALSE(eval["after"].contains("accuracy") || eval["after"].contains("reward"))
      << "nothing is ranked";
  EXPECT_EQ(Summary(temp / "run")["counters"]["demonstrations"], 360);
  const auto lines = Lines(temp / "run/metrics.jsonl");
  ASSERT_EQ(lines.size(), 150u);
  for (const auto& line : lines) {
    for (const char* name :
         {"sft/loss", "sft/tokens", "optim/lr", "optim/grad_norm", "optim/skipped",
          "perf/train_tokens", "perf/shared_tokens", "perf/tokens_per_s", "perf/mfu", "time/train",
          "time/step", "data/epoch"}) {
      EXPECT_TRUE(line.contains(name) && line[name].is_number()) << name << line.dump();
    }
    const bool measured = line["step"] == 49 || line["step"] == 99;
    EXPECT_EQ(line.contains("eval/loss"), measured) << line.dump();
    EXPECT_EQ(line.contains("eval/perplexity"), measured);
    EXPECT_FALSE(line.contains("eval/accuracy"));
  }
  EXPECT_GT(lines[0]["sft/loss"].get<double>(), lines[149]["sft/loss"].get<double>() + 1);
  for (const char* part :
       {"150 steps of 32 demonstrations", "360 to train on, 40 held out (40 rows)",
        "before: held-out loss ", "(40 demonstrations)", "loss ", "model:  "}) {
    EXPECT_TRUE(Has(run.out, part)) << part << "\n" << run.out;
  }
  EXPECT_FALSE(Has(run.out, "reward") || Has(run.out, "pairs")) << run.out;
  EXPECT_FALSE(Has(Read(temp / "run/report.html"), "held-out accuracy"));
  // The model of the end answers in the form that it has learned.
  const auto answer = RunPlumb({"generate", temp / "run", "--prompt", "12+34=", "--temperature",
                                "0", "--max-new-tokens", "40"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_TRUE(Has(answer.out, "<think>") && Has(answer.out, "</answer>")) << answer.out;
}

TEST(SftTrainTest, ResumesBitForBitOverTheSameRowsOnly) {
  const TempFolder temp;
  const std::vector<std::string> sets = {"data.train=" + Rows(temp / "rows.jsonl", 60),
                                         "sft.batch=8",
                                         "run.checkpoint_every=5",
                                         "eval.every=4",
                                         "checkpoint.optimizer=always",
                                         "optimizer.lr_schedule=constant",
                                         "optimizer.warmup_fraction=0"};
  ASSERT_EQ(RunPlumb(Line(temp / "whole", 20, sets)).code, 0);
  ASSERT_EQ(RunPlumb(Line(temp / "parts", 9, sets)).code, 0);
  const auto resumed = RunPlumb(Line(temp / "parts", 20, sets, {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* key : {"weights_sha256", "optimizer_sha256", "eval", "tokens"})
    EXPECT_EQ(Summary(temp / "whole")[key], Summary(temp / "parts")[key]) << key;
  EXPECT_EQ(Lines(temp / "parts/metrics.jsonl").size(), 20u);

  Rows(temp / "rows.jsonl", 61);
  const auto other = RunPlumb(Line(temp / "parts", 30, sets, {"--resume"}));
  EXPECT_EQ(other.code, 2) << other.err;
  EXPECT_TRUE(Has(other.err, "trained on other rows") && Has(other.err, "rows.jsonl")) << other.err;
}

TEST(SftTrainTest, DemonstrationsOfAStoreAreThoseOfTheFile) {
  const TempFolder temp;
  const std::string file = Rows(temp / "rows.jsonl", 40), store = temp / "store";
  const auto imported = RunPlumb({"data", "import", file, "--store", store, "--dataset", "shown"});
  ASSERT_EQ(imported.code, 0) << imported.err;
  for (const std::string& from : {file, store}) {
    const auto run = RunPlumb(Line(temp / ("of_" + std::filesystem::path(from).stem().string()), 6,
                                   {"data.train=" + from, "sft.batch=8"}));
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_TRUE(Has(run.out, "36 to train on, 4 held out")) << run.out;
  }
  EXPECT_EQ(Summary(temp / "of_rows")["weights_sha256"],
            Summary(temp / "of_store")["weights_sha256"]);
  const auto unknown =
      RunPlumb(Line(temp / "c", 2, {"data.train=" + store, "data.dataset=other", "sft.batch=8"}));
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(Has(unknown.err, "it has: shown (40 demonstrations)")) << unknown.err;
  const std::string asked = temp / "asked.jsonl", prompts = temp / "prompts";
  RealFileSystem().WriteFileAtomic(asked, "{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n");
  ASSERT_EQ(RunPlumb({"data", "import", asked, "--store", prompts}).code, 0);
  const auto none = RunPlumb(Line(temp / "d", 2, {"data.train=" + prompts, "sft.batch=8"}));
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(Has(none.err, "no dataset of pairs or demonstrations; it has: train (1 prompts); "))
      << none.err;
}

TEST(SftTrainTest, AnAdapterIsTrainedOnABaseThatStays) {
  const TempFolder temp;
  ASSERT_EQ(RunPlumb(Line(temp / "base", 60)).code, 0);
  const auto run = RunPlumb(Line(temp / "lora", 40,
                                 {"model.path=" + (temp / "base/model"), "policy.adapter=lora",
                                  "run.seed=5", "optimizer.learning_rate=1e-2"}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto eval = Summary(temp / "lora")["eval"];
  EXPECT_LT(eval["after"]["loss"].get<double>(), eval["before"]["loss"].get<double>() - 0.05);
  EXPECT_TRUE(RealFileSystem().Exists(temp / "lora/model/adapter_model.safetensors"));
  EXPECT_FALSE(RealFileSystem().Exists(temp / "lora/model/model.safetensors"));
}

// Ctrl-C leaves no RUN/model, which would be taken for the end's.
TEST(SftTrainTest, AStoppedRunLeavesNoFinishedModel) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const pid_t program = testing::StartProgram(Line(out, 1'000'000), out);
  ASSERT_GT(program, 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!RealFileSystem().Exists(out + "/metrics.jsonl") &&
         std::chrono::steady_clock::now() < deadline)
    usleep(2000);
  ::kill(program, SIGINT);
  int status = 0;
  ASSERT_EQ(waitpid(program, &status, 0), program);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << Read(out + ".out");
  EXPECT_FALSE(RealFileSystem().Exists(out + "/model")) << Read(out + ".out");
}

TEST(SftTrainTest, WrongInputIsSaidAtTheStart) {
  const TempFolder temp;
  const std::string file = Rows(temp / "rows.jsonl", 10);
  const auto refused = [&](const std::vector<std::string>& sets) {
    const auto run = RunPlumb(Line(temp / "run", 2, sets));
    EXPECT_EQ(run.code, 2) << run.out;
    return run.err;
  };
  EXPECT_TRUE(Has(refused({"data.train=" + file, "sft.heldout=10"}),
                  "10 usable rows and sft.heldout = 10: nothing is left to train on"));
  EXPECT_TRUE(Has(refused({"data.limit=5", "sft.heldout=5"}), "5 usable rows"))
      << "of generated sums, too";
  EXPECT_TRUE(Has(
      refused({"data.train=" + file, "sft.batch=10"}),
      "sft.batch = 10 is more than the rows to train on, of which there are 9 besides those that "
      "sft.heldout holds back"));
  EXPECT_TRUE(Has(refused({"data.train=" + file, "sft.max_tokens=5", "data.overlong=error"}),
                  "raise sft.max_tokens"));
  EXPECT_TRUE(Has(refused({"data.train=" + SourcePath("examples/data/gsm8k_train.jsonl")}),
                  "no row of the dataset can be used"));
}

TEST(OfflineSourceTest, AHundredRowsAreHeldOutOrATenth) {
  EXPECT_EQ(HeldOutRows(-1, 5000), 100u);
  EXPECT_EQ(HeldOutRows(-1, 55), 5u);
  EXPECT_EQ(HeldOutRows(0, 55), 0u);
  EXPECT_EQ(HeldOutRows(70, 55), 70u) << "asked for: whoever splits refuses it";
  const TempFolder temp;
  EXPECT_FALSE(IsStoreFolder(temp / "none"));
  EXPECT_TRUE(IsStoreFolder(temp.path()));
  RealFileSystem().WriteFileAtomic(temp / "dataset_info.json", "{}");
  EXPECT_FALSE(IsStoreFolder(temp.path())) << "of datasets' save_to_disk";
  std::vector<int> list = {1, 2, 3};
  EXPECT_EQ(TakeFrom(list, 1), (std::vector<int>{2, 3}));
  EXPECT_EQ(list, std::vector<int>{1});
}

TEST(ObserverTest, WhatIsHeldOutIsSaidInTheWordsOfTheAlgorithm) {
  configs::Config config;
  const learner::EvalResult e{.accuracy = 0.5, .reward = 0.25, .answers = 8, .loss = 0.7};
  EXPECT_EQ(HeldOutText(config, e),
            "pass@1 0.500, mean reward 0.250 +- 0.000 (8 answers, temperature 1)");
  learner::EvalResult some = e;
  some.unscored = 3;
  EXPECT_EQ(HeldOutText(config, some),
            "pass@1 0.500, mean reward 0.250 +- 0.000 (8 answers, 5 with a score, temperature 1)");
  EXPECT_EQ(HeldOutText(config, {.answers = 8, .unscored = 8}),
            "pass@1 -, mean reward - (8 answers, none with a score, temperature 1)");
  learner::EvalResult one = e;
  one.answers = 1;
  EXPECT_EQ(HeldOutText(config, one), "pass@1 0.500, mean reward 0.250 (1 answer, temperature 1)")
      << "of one there is no standard error";
  config.algorithm.name = configs::AlgorithmName::kDpo;
  EXPECT_EQ(HeldOutText(config, e), "accuracy 0.500, margin 0.2500, loss 0.7000 (8 pairs)");
  config.algorithm.name = configs::AlgorithmName::kSft;
  EXPECT_EQ(HeldOutText(config, {.answers = 8, .loss = 0.7, .perplexity = std::exp(0.7)}),
            "loss 0.7000, perplexity 2.014 (8 demonstrations)");
}

// Products of the learner read FP8 (model.products): the bar is reached, a resume may go back to
// the model's type.
TEST(Fp8TrainTest, TheToyTaskReachesItsBarAndGoesOnInTheModelsType) {
  const TempFolder temp;
  const std::string recipe = plumb::testing::SourcePath("configs/toy_sft.toml"), out = temp / "run";
  // The bar is 1 / perplexity; in bfloat16 this run comes to 0.70.
  const auto run =
      RunPlumb({"train", recipe, "--out", out, "--set", "model.products=fp8", "--set",
                "model.dtype=bfloat16", "--set", "eval.bar=0.65", "--set", "eval.every=0"});
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  EXPECT_TRUE(Has(Read(out + "/config.toml"), "products = \"fp8\""));
  const auto more = RunPlumb({"train", out + "/config.toml", "--out", out, "--resume", "--steps",
                              "152", "--set", "model.products=dtype"});
  EXPECT_EQ(more.code, 0) << more.err;
}

// Rollouts: the learner's log-probs are off by the roundings, which the metric shows.
TEST(Fp8TrainTest, AnswersAreDrawnInTheModelsType) {
  const TempFolder temp;
  const auto run = testing::Train(
      temp / "run", 2, {"--set", "model.products=fp8", "--set", "algorithm.logprob_gate=1"});
  ASSERT_EQ(run.code, 0) << run.err;
  const auto lines = Lines(temp / "run/metrics.jsonl");
  ASSERT_FALSE(lines.empty());
  const double off = lines.back().at("sampling/logprob_diff_mean").get<double>();
  EXPECT_GT(off, 1e-4) << "float32 agrees to 1e-6";
  EXPECT_LT(off, 0.1);
}

}  // namespace
}  // namespace plumb::run
