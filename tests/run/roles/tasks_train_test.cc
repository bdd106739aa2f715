// plumb train with policy.tasks: adapters on one base that are weighed by the task of a row, under
// every algorithm, in one process and in several, with resume, and the models of single tasks.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "learner/update/checkpoint_manifest.h"
#include "run/session/model_folder.h"
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

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(Read(run + "/summary.json"));
}

// The untrained model of the toy recipe.
std::string BaseModel(const TempFolder& temp) {
  const auto made =
      RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out", temp / "base", "--steps",
                "0", "--quiet", "--set", "data.eval=", "--set", "eval.bar=0"});
  EXPECT_EQ(made.code, 0) << made.err;
  return temp / "base/checkpoints/step-00000000/model";
}

// Rows of two tasks in turn: the same questions, and answers of each task's own.
std::string Rows(const TempFolder& temp, const std::string& name, int rows, int first = 0) {
  std::string text;
  for (int i = first; i < first + rows; ++i) {
    const bool sum = i % 2 == 0;
    const int a = i / 2 % 50, b = i % 7;
    text += "{\"prompt\": \"" + std::to_string(a) + "+" + std::to_string(b) +
            "=\", \"completion\": \"" + (sum ? "1" : "22") + "\", \"chosen\": \"" +
            (sum ? "1" : "22") + "\", \"rejected\": \"" + (sum ? "22" : "1") + "\", \"kind\": \"" +
            (sum ? "ones" : "twos") + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(temp / name, text);
  return temp / name;
}

// A model that has learned to answer, and cannot tell the tasks apart: log 2 a question.
std::string TaughtModel(const TempFolder& temp) {
  const auto run =
      RunPlumb({"train", SourcePath("configs/toy_sft.toml"), "--out", temp / "taught", "--steps",
                "100", "--quiet", "--set", "data.train=" + Rows(temp, "rows.jsonl", 200), "--set",
                "optimizer.learning_rate=1e-2"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_GT(Summary(temp / "taught")["eval"]["after"]["loss"].get<double>(), 0.25);
  return temp / "taught/model";
}

// Prompts alone.
std::string Prompts(const TempFolder& temp, const std::string& name, int rows, int first = 0) {
  std::string text;
  for (int i = first; i < first + rows; ++i) {
    text += "{\"prompt\": \"" + std::to_string(i % 60) + "+" + std::to_string(i % 7) +
            "=\", \"kind\": \"" + (i % 2 == 0 ? "ones" : "twos") + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(temp / name, text);
  return temp / name;
}

const std::vector<std::string> kTasks = {"policy.adapter=lora",
                                         "policy.rank=4",
                                         "policy.alpha=16",
                                         "policy.adapters=3",
                                         "policy.tasks=[\"ones\",\"twos\"]",
                                         "data.map={task=\"kind\"}",
                                         "optimizer.learning_rate=1e-2",
                                         "checkpoint.optimizer=always",
                                         "eval.bar=0"};

std::vector<std::string> Line(const std::string& recipe, const std::string& out, int64_t steps,
                              const std::vector<std::string>& sets,
                              const std::vector<std::string>& more = {}) {
  std::vector<std::string> line = {"train",  recipe, "--out", out, "--steps", std::to_string(steps),
                                   "--quiet"};
  for (const auto* list : {&kTasks, &sets}) {
    for (const std::string& set : *list) line.insert(line.end(), {"--set", set});
  }
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

std::vector<std::string> GrpoSets(const TempFolder& temp, const std::string& base) {
  return {"model.path=" + base, "data.train=" + Prompts(temp, "train.jsonl", 120),
          "data.eval=" + Prompts(temp, "eval.jsonl", 20, 200), "run.checkpoint_every=2",
          "algorithm.kl_coef=0.01"};
}

void ExpectSameBits(const std::string& a, const std::string& b) {
  for (const char* hash : {"policy_digest", "weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(Summary(a)[hash], Summary(b)[hash]) << b << " " << hash;
}

std::vector<std::string> With(std::vector<std::string> sets, const std::vector<std::string>& more) {
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

Digest DigestIn(const std::string& folder, const std::string& task = "") {
  return LoadModel(folder, {.dtype = "float32", .threads = 1, .task = task})
      .weights->ComputeDigest();
}

TEST(TasksTrainTest, GrpoInOneProcessInSeveralAndResumedComesToTheSameBits) {
  const TempFolder temp;
  const std::string base = BaseModel(temp), recipe = SourcePath("configs/toy_grpo.toml");
  const Digest before = DigestIn(base);
  for (const std::string tokens : {"0", "3"}) {
    const auto sets = With(GrpoSets(temp, base), {"policy.task_tokens=" + tokens});
    const std::string whole = temp / ("whole" + tokens), parts = temp / ("parts" + tokens),
                      processes = temp / ("processes" + tokens);
    const auto run = RunPlumb(Line(recipe, whole, 4, sets));
    ASSERT_EQ(run.code, 0) << run.err;
    ASSERT_EQ(RunPlumb(Line(recipe, parts, 2, sets)).code, 0);
    const auto resumed = RunPlumb(Line(recipe, parts, 4, sets, {"--resume"}));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    ExpectSameBits(whole, parts);
    std::string command = "timeout 120 " + plumb::testing::BinaryPath("plumb");
    for (const std::string& word : Line(recipe, processes, 4, sets, {"--roles", "processes"}))
      command += " '" + word + "'";
    ASSERT_EQ(std::system((command + " >" + (temp / "out") + " 2>&1").c_str()), 0)
        << Read(temp / "out");
    ExpectSameBits(whole, processes);
    // Only adapters and gate are in a checkpoint; the base is as it was.
    const std::string last = whole + "/checkpoints/step-00000004";
    EXPECT_EQ(learner::ReadManifest(Read(last + "/manifest.json"), last).state->base_digest,
              before);
    EXPECT_FALSE(RealFileSystem().Exists(last + "/model/model.safetensors"));
    // What was drawn is what is computed again, and both tasks are there.
    for (const auto& line : Lines(whole + "/metrics.jsonl")) {
      EXPECT_LT(line["sampling/logprob_diff_mean"].get<double>(), 1e-5) << line.dump();
      EXPECT_EQ(line["optim/skipped"], 0);
    }
    const std::string samples = Read(whole + "/samples.jsonl");
    EXPECT_TRUE(Has(samples, "\"task\":\"ones\"") && Has(samples, "\"task\":\"twos\"")) << samples;
    // Of another number of adapters it does not go on.
    const auto other =
        RunPlumb(Line(recipe, parts, 6, With(sets, {"policy.adapters=2"}), {"--resume"}));
    EXPECT_NE(other.code, 0);
    EXPECT_TRUE(Has(other.err, "policy.adapters")) << other.err;
  }
}

TEST(TasksTrainTest, TheModelOfOneTaskAnswersAsThePolicyDoes) {
  const TempFolder temp;
  const std::string base = TaughtModel(temp);
  const auto run =
      RunPlumb(Line(SourcePath("configs/toy_sft.toml"), temp / "run", 60,
                    {"model.path=" + base, "data.train=" + Rows(temp, "rows.jsonl", 200),
                     "run.checkpoint_every=0"}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto eval = Summary(temp / "run")["eval"];
  EXPECT_LT(eval["after"]["loss"].get<double>(), 0.1) << eval.dump();
  const std::string model = temp / "run/model";
  const auto answer = [&](const std::string& folder, const std::vector<std::string>& more) {
    std::vector<std::string> line = {"generate",         folder, "--prompt", "61+2=",  "--greedy",
                                     "--max-new-tokens", "4",    "--dtype",  "float32"};
    line.insert(line.end(), more.begin(), more.end());
    const auto out = RunPlumb(line);
    EXPECT_EQ(out.code, 0) << out.err;
    return out.out;
  };
  const std::string ones = answer(model, {"--task", "ones"}),
                    twos = answer(model, {"--task", "twos"});
  EXPECT_TRUE(Has(ones, "1") && !Has(ones, "22")) << ones;
  EXPECT_TRUE(Has(twos, "22")) << twos;
  for (const auto& [task, said] : {std::pair("ones", ones), {"twos", twos}}) {
    const std::string whole = temp / (std::string("whole_") + task),
                      adapter = temp / (std::string("adapter_") + task);
    const auto merged = RunPlumb({"convert", temp / "run", whole, "--task", task});
    ASSERT_EQ(merged.code, 0) << merged.err;
    EXPECT_EQ(answer(whole, {}), said);
    EXPECT_EQ(answer(model, {"--task", task, "--merge"}), said);
    const auto alone = RunPlumb({"convert", temp / "run", adapter, "--task", task, "--adapter"});
    ASSERT_EQ(alone.code, 0) << alone.err;
    EXPECT_TRUE(Has(alone.out, "rank 12 and alpha 48")) << alone.out;
    EXPECT_EQ(nlohmann::json::parse(Read(adapter + "/adapter_config.json"))["peft_type"], "LORA");
    EXPECT_EQ(answer(adapter, {}), said);
    EXPECT_EQ(DigestIn(adapter), DigestIn(model, task));
    EXPECT_EQ(RunPlumb({"convert", temp / "run", adapter, "--task", task, "--adapter"}).code, 2);
  }
  for (const auto& [line, words] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"generate", model, "--prompt", "1"}, "say which, --task NAME of ones, twos"},
           {{"generate", model, "--prompt", "1", "--task", "threes"},
            "'threes' is none of this policy's: ones, twos"},
           {{"generate", base, "--prompt", "1", "--task", "ones"}, "is no adapter"},
           {{"convert", temp / "run", temp / "x"}, "say which, --task NAME of ones, twos"},
           {{"convert", temp / "run", temp / "x", "--adapter"}, "and the task with --task"}}) {
    const auto refused = RunPlumb(line);
    EXPECT_EQ(refused.code, 2);
    EXPECT_TRUE(Has(refused.err, words)) << refused.err;
  }
}

TEST(TasksTrainTest, LearnedTokensStandInFrontOfATasksPrompts) {
  const TempFolder temp;
  const std::string base = TaughtModel(temp);
  // No gate: the tokens alone tell the tasks apart.
  const auto run =
      RunPlumb(Line(SourcePath("configs/toy_sft.toml"), temp / "run", 80,
                    {"model.path=" + base, "data.train=" + Rows(temp, "rows.jsonl", 200),
                     "policy.adapters=1", "policy.task_tokens=3", "run.checkpoint_every=0"}));
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_LT(Summary(temp / "run")["eval"]["after"]["loss"].get<double>(), 0.15);
  for (const auto& [task, said] : {std::pair("ones", "1"), {"twos", "22"}}) {
    const auto out = RunPlumb({"generate", temp / "run", "--prompt", "61+2=", "--greedy",
                               "--max-new-tokens", "4", "--task", task});
    EXPECT_EQ(out.code, 0) << out.err;
    EXPECT_TRUE(Has(out.out, said)) << out.out;
  }
  for (const std::vector<std::string>& line :
       {std::vector<std::string>{"convert", temp / "run", temp / "x", "--task", "ones"},
        {"convert", temp / "run", temp / "x", "--task", "ones", "--adapter"},
        {"eval", temp / "run", Rows(temp, "p.jsonl", 4), "--perplexity", "--task", "ones"}}) {
    const auto refused = RunPlumb(line);
    EXPECT_NE(refused.code, 0) << line[0];
    EXPECT_TRUE(Has(refused.err, "learned tokens in front of")) << refused.err;
  }
}

TEST(TasksTrainTest, DpoStartsAtTheBaseAndLearnsEachTasksAnswer) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  const std::string rows = Rows(temp, "pairs.jsonl", 160);
  RealFileSystem().WriteFileAtomic(temp / "dpo.toml",
                                   "[run]\nthreads = 1\n[model]\npath = \"" + base +
                                       "\"\n[data]\ntrain = \"" + rows +
                                       "\"\n[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 8\n"
                                       "heldout = 20\n");
  const auto run = RunPlumb(Line(temp / "dpo.toml", temp / "whole", 30, {}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto summary = Summary(temp / "whole");
  EXPECT_NEAR(summary["eval"]["before"]["loss"].get<double>(), std::log(2.0), 1e-9);
  EXPECT_LT(summary["eval"]["after"]["loss"].get<double>(), 0.5) << "one adapter stays at log 2";
  ASSERT_EQ(RunPlumb(Line(temp / "dpo.toml", temp / "parts", 12, {})).code, 0);
  const auto resumed = RunPlumb(Line(temp / "dpo.toml", temp / "parts", 30, {}, {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* hash : {"weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(summary[hash], Summary(temp / "parts")[hash]) << hash;
}

TEST(TasksTrainTest, PpoTrainsWithEitherCritic) {
  const TempFolder temp;
  const std::string base = BaseModel(temp), recipe = SourcePath("configs/toy_grpo.toml");
  for (const std::string critic : {"own", "shared"}) {
    const auto sets = With(GrpoSets(temp, base), {"algorithm.name=ppo", "critic.mode=" + critic,
                                                  "critic.warmup_steps=0", "policy.task_tokens=2"});
    const std::string whole = temp / ("whole_" + critic), parts = temp / ("parts_" + critic);
    const auto run = RunPlumb(Line(recipe, whole, 4, sets));
    ASSERT_EQ(run.code, 0) << run.err;
    ASSERT_EQ(RunPlumb(Line(recipe, parts, 2, sets)).code, 0);
    const auto resumed = RunPlumb(Line(recipe, parts, 4, sets, {"--resume"}));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    ExpectSameBits(whole, parts);
  }
}

TEST(TasksTrainTest, ARowOfNoKnownTaskIsNamed) {
  const TempFolder temp;
  const std::string base = BaseModel(temp);
  for (const auto& [row, words] :
       {std::pair(
            "{\"prompt\": \"1+1=\", \"completion\": \"2\", \"kind\": \"threes\"}\n",
            "the row is of the task 'threes' (column 'kind'); policy.tasks knows: ones, twos"),
        {"{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n",
         "the row has no column 'kind' (data.map.task), which names its task; policy.tasks knows: "
         "ones, twos"}}) {
    const std::string rows = Rows(temp, "rows.jsonl", 30);
    RealFileSystem().WriteFileAtomic(rows, Read(rows) + row);
    const auto sft = RunPlumb(Line(SourcePath("configs/toy_sft.toml"), temp / "sft", 1,
                                   {"model.path=" + base, "data.train=" + rows}));
    EXPECT_EQ(sft.code, 2);
    EXPECT_TRUE(Has(sft.err, words) && Has(sft.err, "row 31")) << sft.err;
    const std::string prompts = Prompts(temp, "train.jsonl", 40);
    RealFileSystem().WriteFileAtomic(prompts, Read(prompts) + row);
    const auto grpo = RunPlumb(Line(SourcePath("configs/toy_grpo.toml"), temp / "grpo", 1,
                                    {"model.path=" + base, "data.train=" + prompts, "data.eval="}));
    EXPECT_EQ(grpo.code, 2);
    EXPECT_TRUE(Has(grpo.err, words) && Has(grpo.err, "train.jsonl:41")) << grpo.err;
  }
}

}  // namespace
}  // namespace plumb::run
