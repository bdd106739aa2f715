// plumb config show and config new (run/session/recipe_proposal.h): what is shown fits the width,
// and every recipe that is made trains.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>
#include <tuple>

#include "run/session/recipe_proposal.h"
#include "tests/run/models/toy_model.h"
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

size_t Longest(const std::string& text) {
  size_t longest = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) longest = std::max(longest, line.size());
  return longest;
}

TEST(ConfigShowTest, FitsTheWidthAndShowsAPart) {
  const std::string recipe = SourcePath("configs/toy_grpo.toml");
  unsetenv("COLUMNS");
  const auto all = RunPlumb({"config", "show", recipe});
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_LE(Longest(all.out), 80u) << "not a terminal";
  setenv("COLUMNS", "150", 1);
  const auto wide = RunPlumb({"config", "show", recipe});
  EXPECT_TRUE(Longest(wide.out) <= 150 && Longest(wide.out) > 120) << Longest(wide.out);
  unsetenv("COLUMNS");
  const auto part = RunPlumb({"config", "show", recipe, "optimizer.learning"});
  EXPECT_TRUE(Has(part.out, "optimizer.learning_rate = 0.003")) << part.out;
  EXPECT_TRUE(Has(part.out, "peak rate")) << part.out;
  EXPECT_FALSE(Has(part.out, "optimizer.beta1")) << part.out;
  const auto changed = RunPlumb({"config", "show", recipe, "optimizer", "--changed"});
  EXPECT_TRUE(Has(changed.out, "optimizer.learning_rate")) << changed.out;
  EXPECT_FALSE(Has(changed.out, "optimizer.beta1") || Has(changed.out, "run.steps")) << changed.out;
  EXPECT_EQ(RunPlumb({"config", "show", recipe, "critic", "--changed"}).out,
            "nothing differs from the defaults\n");
  const auto rates = RunPlumb({"config", "show", recipe, "learning_rate"});
  for (const char* option : {"optimizer.learning_rate = 0.003", "sft.learning_rate", "critic."})
    EXPECT_TRUE(Has(rates.out, option)) << rates.out;
  EXPECT_FALSE(Has(rates.out, "optimizer.beta1")) << rates.out;
  const auto called = RunPlumb({"config", "show", recipe, "beta"});
  EXPECT_TRUE(Has(called.out, "algorithm.kl_coef")) << "as TRL calls it: " << called.out;
  const auto misspelt = RunPlumb({"config", "show", recipe, "optimser"});
  EXPECT_EQ(misspelt.code, 2);
  EXPECT_TRUE(Has(misspelt.err, "did you mean 'optimizer'?")) << misspelt.err;
  EXPECT_EQ(RunPlumb({"config", "show", recipe, "run", "--toml"}).code, 2);
}

TEST(ConfigShowTest, ARunsFolderStandsForItsRecipe) {
  const TempFolder temp;
  EXPECT_EQ(RunPlumb({"config", "show", temp.path()}).code, 2);
  RealFileSystem().WriteFileAtomic(temp / "config.toml",
                                   "[run]\nsteps = 7\n[data]\ntrain = \"arithmetic\"\n"
                                   "[[reward.parts]]\nkind = \"answer\"\n");
  const auto shown = RunPlumb({"config", "show", temp.path(), "run.steps"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(Has(shown.out, "run.steps = 7")) << shown.out;
}

// What is no recipe is told what it is, not that it is no TOML.
TEST(ConfigShowTest, OtherFilesAreCalledWhatTheyAre) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "rows.jsonl", "{\"prompt\": \"1+1=\"}\n");
  RealFileSystem().WriteFileAtomic(temp / "rows", "{\"prompt\": \"1+1=\"}\n");
  RealFileSystem().WriteFileAtomic(temp / "rw.py", "def reward(completions): return [0]\n");
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"train"}, {"reward", "test"}}) {
    const auto said = [&](const std::string& path) {
      std::vector<std::string> line = verb;
      line.push_back(path);
      const auto ran = RunPlumb(line);
      EXPECT_EQ(ran.code, 2) << ran.out;
      EXPECT_FALSE(Has(ran.err, "TOML")) << ran.err;
      return ran.err;
    };
    EXPECT_TRUE(Has(said(temp / "rows.jsonl"), "rows.jsonl: is a file of rows, not a recipe"));
    EXPECT_TRUE(Has(said(temp / "rw.py"), "rw.py: is a Python program, not a recipe"));
    EXPECT_TRUE(Has(RunPlumb({"config", "show", temp / "rows"}).err,
                    "this is JSON, as rows of data are, and no recipe"));
  }
}

TEST(ConfigShowTest, AMissingFileOfARecipeIsLookedForInItsComments) {
  const TempFolder temp;
  const std::string recipe = temp / "dpo.toml";
  std::string text = Read(SourcePath("configs/toy_dpo.toml"));
  for (size_t at; (at = text.find("runs/pairs")) != std::string::npos;)
    text.replace(at, 10, "none/pairs");
  RealFileSystem().WriteFileAtomic(recipe, text);
  const auto ran = RunPlumb({"train", recipe, "--out", temp / "run"});
  EXPECT_EQ(ran.code, 3) << ran.err;
  EXPECT_TRUE(Has(ran.err, "a comment of the recipe says how it is made: " + recipe +
                               ":2: build/plumb train configs/toy_grpo.toml "))
      << ran.err;
  EXPECT_TRUE(Has(ran.err, "; then " + recipe + ":3: build/plumb data mine --store ")) << ran.err;
}

class ConfigNew : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string prompts, pairs, judged, shown, answers;
    for (int i = 0; i < 30; ++i) {
      const std::string question = std::to_string(i) + "+1=", sum = std::to_string(i + 1);
      prompts += "{\"prompt\": \"" + question + "\"}\n";
      answers += "{\"question\": \"" + question + "\", \"answer\": \"" + sum + "\"}\n";
      pairs +=
          "{\"prompt\": \"" + question + "\", \"chosen\": \"" + sum + "\", \"rejected\": \"0\"}\n";
      judged += "{\"prompt\": \"" + question + "\", \"completion\": \"" + sum +
                "\", \"label\": " + (i % 2 == 0 ? "true" : "false") + "}\n";
      shown += "{\"prompt\": \"" + question + "\", \"completion\": \"" + sum + "\"}\n";
    }
    for (const auto& [name, rows] :
         {std::pair("prompts", prompts), std::pair("answers", answers), std::pair("pairs", pairs),
          std::pair("judged", judged), std::pair("shown", shown)})
      RealFileSystem().WriteFileAtomic(Data(name), rows);
  }

  std::string Data(const std::string& name) const { return temp_ / (name + ".jsonl"); }

  // Makes a recipe and trains a step of it as it is; returns the recipe.
  std::string MakeAndTrain(const std::string& algorithm, const std::string& model,
                           const std::string& data) {
    const std::string name = algorithm + std::to_string(made_++), recipe = temp_ / (name + ".toml");
    std::vector<std::string> line = {"config", "new", "--algorithm", algorithm,
                                     "--data", data,  "--out",       recipe};
    if (!model.empty()) line.insert(line.end(), {"--model", model});
    const auto made = RunPlumb(line);
    EXPECT_EQ(made.code, 0) << algorithm << ": " << made.err;
    if (made.code != 0) return "";
    const auto trained = RunPlumb(
        {"train", recipe, "--out", temp_ / name, "--steps", "1", "--set", "run.threads=1"});
    EXPECT_EQ(trained.code, 0) << algorithm << ": " << trained.err << trained.out << Read(recipe);
    if (trained.code == 0) {
      EXPECT_EQ(Lines(temp_ / (name + "/metrics.jsonl")).size(), 1u) << algorithm;
    }
    return Read(recipe);
  }

  const TempFolder temp_;
  int made_ = 0;
};

TEST(ConfigShowTest, AnUnknownRewardKindIsSaidBeforeAnythingIsLoaded) {
  const auto shown = RunPlumb({"config", "show", SourcePath("configs/toy_grpo.toml"), "--set",
                               "reward.parts.0.kind=lenght"});
  EXPECT_EQ(shown.code, 2);
  EXPECT_TRUE(Has(shown.err, "reward part 'brief': unknown kind 'lenght', did you mean 'length'?"))
      << shown.err;
}

TEST_F(ConfigNew, EveryAlgorithmsRecipeTrainsAStep) {
  // Of a new model, and of the folder that the first of them leaves.
  const std::string first = MakeAndTrain("sft", "", "arithmetic");
  const std::string model = temp_ / "sft0/model";
  for (const std::string_view name : configs::kNames<configs::AlgorithmName>) {
    const std::string algorithm(name);
    const bool pairs = algorithm == "dpo" || algorithm == "reward_model";
    for (const std::string& start : {model, std::string()}) {
      // A new model begins the same way whatever samples it later.
      if (start.empty() && !pairs && algorithm != "grpo" && algorithm != "ppo") continue;
      const std::string recipe =
          MakeAndTrain(algorithm, start, pairs ? Data("pairs") : "arithmetic");
      EXPECT_TRUE(Has(recipe, "name = \"" + algorithm + "\"")) << recipe;
      EXPECT_EQ(Has(recipe, "[[reward.parts]]"), !pairs && algorithm != "sft") << recipe;
      EXPECT_TRUE(Has(recipe, "# peak rate")) << "advice stands behind each line: " << recipe;
    }
  }
}

TEST_F(ConfigNew, TheRewardFitsWhatTheRowsKnow) {
  const std::string with = MakeAndTrain("grpo", "", Data("answers"));
  EXPECT_TRUE(Has(with, "kind = \"answer\"") && !Has(with, "kind = \"length\"")) << with;
  EXPECT_TRUE(Has(with, "30 prompts") && Has(with, "all with a ground")) << with;
  EXPECT_TRUE(Has(with, "limit = 27") && Has(with, "eval_skip = 27")) << "the last ones: " << with;
  const std::string without = MakeAndTrain("rloo", "", Data("prompts"));
  EXPECT_TRUE(Has(without, "kind = \"length\"") && Has(without, "#   kind = \"python\""))
      << without;
}

TEST_F(ConfigNew, APlaceholderRewardAndTooFewHeldOutRowsAreSaid) {
  std::string rows;
  for (int i = 0; i < 12; ++i) rows += "{\"prompt\": \"" + std::to_string(i) + "+1=\"}\n";
  RealFileSystem().WriteFileAtomic(Data("plain"), rows);
  const auto made = RunPlumb({"config", "new", "--data", Data("plain")});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.err,
                  "note: the rows have no right answer: the reward part 'brief' is a "
                  "placeholder"))
      << made.err;
  EXPECT_TRUE(Has(made.err, "plumb reward test")) << made.err;
  EXPECT_TRUE(Has(made.out, "1 row is held out (eval_prompts): so few measure nothing"))
      << made.out;
}

// One row without an answer made the reward of all the others a placeholder.
TEST_F(ConfigNew, SomeRowsWithoutAnAnswerAreCountedAndTheOthersCompared) {
  RealFileSystem().WriteFileAtomic(
      Data("some"), "{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n{\"prompt\": \"1+2=\"}\n");
  const auto made = RunPlumb({"config", "new", "--data", Data("some")});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.out, "kind = \"answer\"") && !Has(made.out, "brief")) << made.out;
  EXPECT_TRUE(Has(made.err, "note: 1 of 2 rows has no answer to compare with")) << made.err;
  const std::string title = std::regex_replace(made.out, std::regex("\n# "), " ");
  EXPECT_TRUE(Has(title, "2 prompts, the longest of 5 tokens, 1 with a ground truth")) << title;
}

TEST_F(ConfigNew, ASystemPromptThatIsAddedIsSaid) {
  testing::WriteToyModel(temp_ / "chat", {.max_positions = 300, .chat_template = true});
  const auto made =
      RunPlumb({"config", "new", "--model", temp_ / "chat", "--data", Data("answers")});
  EXPECT_TRUE(Has(made.out, "kind = \"soft_format\"")) << made.out << made.err;
  EXPECT_TRUE(Has(made.err, "note: the prompts get a system prompt that asks for <think>"))
      << made.err;
}

TEST_F(ConfigNew, AFolderThatIsNoStoreIsToldOfAFileInIt) {
  RealFileSystem().CreateDirectories(temp_ / "rows");
  for (const char* name : {"rows/b.jsonl", "rows/a.parquet", "rows/import.log"})
    RealFileSystem().WriteFileAtomic(temp_ / name, "{\"prompt\": \"1+1=\"}\n");
  for (const char* algorithm : {"grpo", "dpo", "sft"}) {
    const auto made =
        RunPlumb({"config", "new", "--algorithm", algorithm, "--data", temp_ / "rows"});
    EXPECT_EQ(made.code, 3) << made.err;
    EXPECT_TRUE(Has(made.err, "is a folder and no store: give a file in it, such as " +
                                  (temp_ / "rows/a.parquet")))
        << made.err;
  }
}

// Columns that are usually the right answer are taken as it, where a rule can compare with them.
TEST_F(ConfigNew, AColumnThatIsUsuallyTheTruthIsTakenAsIt) {
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    rows += "{\"prompt\": \"" + std::to_string(i) + "+1=\", \"expected_answer\": \"" +
            std::to_string(i + 1) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(Data("expected"), rows);
  const auto made = RunPlumb({"config", "new", "--data", Data("expected")});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.out, "map = { \"ground_truth\" = \"expected_answer\" }")) << made.out;
  EXPECT_TRUE(Has(made.out, "kind = \"answer\"")) << made.out;
  EXPECT_TRUE(Has(made.err, "note: the column 'expected_answer' is taken as")) << made.err;
}

TEST_F(ConfigNew, ColumnsOfOtherNamesAreNamedByMapAndInARecipeBySet) {
  RealFileSystem().WriteFileAtomic(
      Data("promt"),
      "{\"promt\": \"1+1=\", \"sum\": \"2\"}\n{\"promt\": \"1+2=\", \"sum\": \"3\"}\n");
  const auto refused = RunPlumb({"config", "new", "--data", Data("promt")});
  EXPECT_TRUE(Has(refused.err, "--map prompt=promt")) << refused.err;
  const auto made = RunPlumb(
      {"config", "new", "--data", Data("promt"), "--map", "prompt=promt", "--map", "answer=sum"});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.out, "map = { \"answer\" = \"sum\", \"prompt\" = \"promt\" }")) << made.out;
  EXPECT_TRUE(Has(made.out, "kind = \"answer\"")) << made.out;
  EXPECT_EQ(
      made.out,
      RunPlumb({"config", "new", "--data", Data("promt"), "--map", "prompt=promt,answer=sum"}).out);
  const auto trained = RunPlumb({"train", SourcePath("configs/toy_grpo.toml"), "--out",
                                 temp_ / "run", "--set", "data.train=" + Data("promt")});
  EXPECT_EQ(trained.code, 2);
  EXPECT_TRUE(Has(trained.err, "--set 'data.map={prompt=\"promt\"}'")) << trained.err;
  EXPECT_FALSE(Has(trained.err, "--map ")) << trained.err;
}

TEST_F(ConfigNew, AnAnswerWhoseColumnIsNotKnownIsAskedFor) {
  RealFileSystem().WriteFileAtomic(Data("mine"),
                                   "{\"query\": \"1+1=\", \"good\": \"2\", \"bad\": \"3\"}\n");
  const auto made = [&](const char* algorithm, const char* map) {
    std::vector<std::string> line = {"config",  "new",    "--algorithm",
                                     algorithm, "--data", Data("mine")};
    if (*map != 0) line.insert(line.end(), {"--map", map});
    return RunPlumb(line);
  };
  EXPECT_TRUE(Has(made("dpo", "prompt=query").err,
                  "no preference pairs here, but prompts: the rows have query, good, bad, and no "
                  "column is known as an answer. Name both, --map chosen=COLUMN,rejected=COLUMN"))
      << made("dpo", "prompt=query").err;
  EXPECT_TRUE(Has(made("sft", "").err,
                  "(name them: --map prompt=COLUMN,completion=COLUMN, in a recipe data.map = { "
                  "prompt = \"COLUMN\", completion = \"COLUMN\" })"))
      << made("sft", "").err;
  const auto whole = made("dpo", "prompt=query,chosen=good,rejected=bad");
  EXPECT_EQ(whole.code, 0) << whole.err;
}

TEST_F(ConfigNew, ARewardOfTheUsersOwnTakesThePlaceOfTheUsual) {
  RealFileSystem().WriteFileAtomic(
      temp_ / "mine.py",
      "def short(completions, **columns): return [1.0 / (1 + len(c)) for c in completions]\n"
      "def even(completions, **columns): return [float(len(c) % 2) for c in completions]\n");
  const std::string recipe = temp_ / "own.toml";
  const auto made =
      RunPlumb({"config", "new", "--data", Data("answers"), "--reward", temp_ / "mine.py:short",
                "--reward", temp_ / "mine.py:even", "--out", recipe});
  ASSERT_EQ(made.code, 0) << made.err;
  const std::string text = Read(recipe);
  for (const char* line : {"name = \"short\"", "name = \"even\"", "kind = \"python\"",
                           "path = \"mine.py\"", "args = [\"function=even\"]"})
    EXPECT_TRUE(Has(text, line)) << line << ": " << text;
  EXPECT_FALSE(Has(text, "\"answer\"") || Has(text, "system_prompt")) << text;
  // The program itself: the functions run in a process of it.
  EXPECT_EQ(std::system((plumb::testing::BinaryPath("plumb") + " reward test '" + recipe + "' >" +
                         (temp_ / "tested") + " 2>&1")
                            .c_str()),
            0)
      << Read(temp_ / "tested");
  const auto refused = [&](const std::string& algorithm, const std::string& reward) {
    return RunPlumb(
        {"config", "new", "--algorithm", algorithm, "--data", Data("answers"), "--reward", reward});
  };
  EXPECT_EQ(refused("grpo", temp_ / "none.py").code, 3);
  EXPECT_TRUE(Has(made.err, "plumb reward test " + recipe)) << made.err;
  const auto nope = refused("grpo", temp_ / "mine.py:nope"),
             part = refused("grpo", temp_ / "mine.py:eve");
  EXPECT_EQ(nope.code, 3) << nope.err;
  EXPECT_TRUE(Has(nope.err, "mine.py: has no function 'nope'")) << nope.err;
  EXPECT_TRUE(Has(part.err, "has no function 'eve'")) << part.err;
  EXPECT_EQ(refused("grpo", temp_ / "mine.py:").code, 2);
  EXPECT_TRUE(Has(refused("grpo", temp_ / "mine.py:").err, "no function is named"));
  RealFileSystem().WriteFileAtomic(temp_ / "others.py",
                                   "from mine import (even,\n  short)\nlong_ = lambda x: x\n");
  for (const char* there : {"others.py:short", "others.py:long_", "mine.py:even"})
    EXPECT_EQ(refused("grpo", temp_ / there).code, 0) << there;
  EXPECT_TRUE(Has(refused("grpo", "mine").err, "write FILE.py or FILE.py:FUNCTION"));
  EXPECT_TRUE(Has(refused("sft", temp_ / "mine.py").err, "learns from rows and scores no answers"));
}

TEST_F(ConfigNew, StepsAreSaidInPassesOverTheRows) {
  const auto made = RunPlumb({"config", "new", "--algorithm", "sft", "--data", Data("shown")});
  EXPECT_TRUE(Has(made.out, "passes over the 27 that are trained on: one")) << made.out;
}

TEST_F(ConfigNew, WhatARecipeLeavesAsideOfTheRowsIsSaid) {
  const auto pairs = RunPlumb({"config", "new", "--data", Data("pairs")});
  EXPECT_EQ(pairs.code, 0) << pairs.err;
  for (const std::string& said : {pairs.err, pairs.out})
    EXPECT_TRUE(Has(said, "--algorithm dpo")) << said;
  EXPECT_TRUE(Has(pairs.err, "note: the rows are preference pairs: grpo answers")) << pairs.err;
  EXPECT_EQ(RunPlumb({"config", "new", "--data", Data("answers")}).err, "");
  RealFileSystem().WriteFileAtomic(Data("shown"), Read(Data("shown")) + "no JSON\n");
  const auto shown = RunPlumb({"config", "new", "--algorithm", "sft", "--data", Data("shown")});
  EXPECT_TRUE(Has(shown.err, "note: 1 row of the data cannot be used (1 bad_json)")) << shown.err;
  RealFileSystem().WriteFileAtomic(Data("pairs"), Read(Data("pairs")) + "{\"prompt\": \"1+1=\"}\n");
  const auto rest = RunPlumb({"config", "new", "--algorithm", "dpo", "--data", Data("pairs")});
  EXPECT_TRUE(Has(rest.err, "note: 1 row of the data cannot be used (one: ")) << rest.err;
}

TEST_F(ConfigNew, TheLossFitsTheRows) {
  EXPECT_TRUE(Has(MakeAndTrain("dpo", "", Data("pairs")), "loss = \"sigmoid\""));
  EXPECT_TRUE(Has(MakeAndTrain("dpo", "", Data("judged")), "loss = \"kto\""));
  EXPECT_FALSE(Has(MakeAndTrain("sft", "", Data("shown")), "map = "));
  const std::string answers = MakeAndTrain("sft", "", Data("answers"));
  EXPECT_TRUE(Has(answers, "map = { \"completion\" = \"answer\" }")) << answers;
}

// What is equal to a held-out row is not trained on, so that fewer are left for a batch.
TEST_F(ConfigNew, TheBatchFitsRowsThatStandTwice) {
  std::string rows;
  for (int i = 0; i < 30; ++i) {
    rows += "{\"prompt\": \"" + std::to_string(i % 10) + "+1=\", \"completion\": \"" +
            std::to_string(i % 10 + 1) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(Data("twice"), rows);
  const std::string recipe = MakeAndTrain("sft", "", Data("twice"));
  EXPECT_TRUE(Has(recipe, "batch = 21")) << "3 held out, 6 equal to one of them: " << recipe;
}

TEST_F(ConfigNew, WritesToTheTerminalAndOverNothing) {
  const auto shown = RunPlumb({"config", "new", "--data", "arithmetic"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(Has(shown.out, "name = \"grpo\"") && shown.out.starts_with("# grpo of")) << shown.out;
  EXPECT_EQ(shown.out,
            ProposeRecipe({.algorithm = configs::AlgorithmName::kGrpo, .data = "arithmetic"}).text);
  const std::string file = temp_ / "mine.toml";
  RealFileSystem().WriteFileAtomic(file, "mine\n");
  const auto taken = RunPlumb({"config", "new", "--data", "arithmetic", "--out", file});
  EXPECT_EQ(taken.code, 2);
  EXPECT_TRUE(Has(taken.err, "is there already")) << taken.err;
  EXPECT_EQ(Read(file), "mine\n");
}

TEST_F(ConfigNew, TheRecipeTrainsFromAnotherFolderThanItWasMadeIn) {
  namespace fs = std::filesystem;
  const fs::path before = fs::current_path();
  RealFileSystem().CreateDirectories(temp_ / "recipes");
  RealFileSystem().CreateDirectories(temp_ / "elsewhere/deep");
  fs::current_path(temp_.path());
  const auto made = RunPlumb({"config", "new", "--algorithm", "sft", "--data", "shown.jsonl",
                              "--out", "recipes/mine.toml"});
  const auto shown = RunPlumb({"config", "new", "--algorithm", "sft", "--data", "shown.jsonl"});
  fs::current_path(temp_ / "elsewhere/deep");
  const auto trained = RunPlumb({"train", "../../recipes/mine.toml", "--out", "run", "--steps", "1",
                                 "--set", "run.threads=1"});
  fs::current_path(before);
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(Read(temp_ / "recipes/mine.toml"), "train = \"../shown.jsonl\""));
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_TRUE(Has(shown.out, "train = \"" + fs::canonical(Data("shown")).string() + "\""))
      << shown.out;
}

TEST_F(ConfigNew, SaysWhatDoesNotFit) {
  const auto refused = [&](const std::vector<std::string>& arguments, int code = 2) {
    std::vector<std::string> line = {"config", "new", "--algorithm"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    const auto made = RunPlumb(line);
    EXPECT_EQ(made.code, code) << made.out;
    return made.err;
  };
  EXPECT_TRUE(Has(refused({"gpro", "--data", "arithmetic"}), "did you mean 'grpo'?"));
  EXPECT_TRUE(Has(refused({"gpro", "--data", "arithmetic"}), "'grpo'? it is one of"));
  EXPECT_TRUE(Has(refused({"dpo", "--data", "arithmetic"}), "name it with --data"));
  const std::string folder = refused({"grpo", "--data", temp_.path()}, 3);
  EXPECT_TRUE(Has(folder, "is a folder") && !Has(folder, "--model")) << folder;
  RealFileSystem().CreateDirectories(temp_ / "run");
  RealFileSystem().WriteFileAtomic(temp_ / "run/run.json", "{}");
  RealFileSystem().CreateDirectories(temp_ / "run/model");
  EXPECT_TRUE(Has(refused({"sft", "--data", Data("shown"), "--model", temp_ / "run"}, 3),
                  "is a run's folder, not a model: its model is " + (temp_ / "run/model")));
  EXPECT_TRUE(Has(refused({"grpo", "--data", "arithmetic", "--out", ""}), "--out: is empty"));
  EXPECT_TRUE(Has(refused({"grpo", "--data", "arithmetic", "--out", temp_ / "no/x"}, 3),
                  "there is no folder"));
  EXPECT_TRUE(Has(refused({"dpo", "--data", Data("shown")}),
                  "no preference pairs here (a row: demonstrations)"));
  EXPECT_TRUE(Has(refused({"reward_model", "--data", Data("judged")}), "dpo trains on them"));
  EXPECT_TRUE(Has(refused({"grpo", "--data", temp_ / "none.jsonl"}, 3), "is not there"));
  EXPECT_TRUE(Has(refused({"grpo", "--data", SourcePath("examples/data/gsm8k_train.jsonl")}),
                  "name the folder of one that knows these rows with --model"));
  // Of words, and of dialogues, each algorithm is told the line and what to do.
  const auto file = [&](const char* name, const std::string& rows) {
    RealFileSystem().WriteFileAtomic(temp_ / name, rows);
    return temp_ / name;
  };
  const std::string pair = R"({"prompt": "1+1=", "chosen": "2", "rejected": "3"})";
  const std::string pairs =
      file("words.jsonl", pair + "\n" + R"({"prompt": "how", "chosen": "a", "rejected": "b"})");
  const std::string shown = file("shown_words.jsonl", R"({"prompt": "how", "completion": "so"})");
  const std::string asked = file("asked_words.jsonl", R"({"question": "how", "answer": "so"})");
  const std::string talk = file(
      "sharegpt.json",
      R"([{"conversations": [{"from": "human", "value": "how"}, {"from": "gpt", "value": "so"}]}])");
  for (const auto& [algorithm, data, line] :
       {std::tuple("dpo", pairs, ":2"), std::tuple("reward_model", pairs, ":2"),
        std::tuple("sft", shown, ":1"), std::tuple("sft", asked, ":1"),
        std::tuple("sft", talk, ":1")}) {
    const std::string said = refused({algorithm, "--data", data});
    EXPECT_TRUE(Has(said, data + line + ": ")) << algorithm << said;
    EXPECT_TRUE(Has(said, "name the folder of one that knows these rows with --model")) << said;
    EXPECT_FALSE(Has(said, "model.path")) << said;
  }
}

}  // namespace
}  // namespace plumb::run
