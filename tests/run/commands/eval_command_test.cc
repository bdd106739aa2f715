// plumb eval by rewards, on pairs and on texts; plumb generate over files and while it is drawn.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "common/base/program_call.h"
#include "run/session/model_folder.h"
#include "tests/run/cli_runner.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::CliOutput;
using testing::Has;
using testing::JsonLines;
using testing::RunPlumb;
using testing::WriteFile;

class EvalCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::WriteToyModel(model_);
    std::string rows;
    for (int i = 0; i < 12; ++i) {
      rows +=
          nlohmann::json{{"prompt", std::to_string(i) + "+1="}, {"answer", std::to_string(i + 1)}}
              .dump() +
          "\n";
    }
    WriteFile(rows_, rows);
  }
  std::string Recipe(const std::string& text) {
    WriteFile(temp_ / "recipe.toml", text);
    return temp_ / "recipe.toml";
  }
  CliOutput Eval(std::vector<std::string> more) {
    std::vector<std::string> line = {"eval", model_,      rows_, "--max-new-tokens",
                                     "6",    "--threads", "1",   "--json"};
    line.insert(line.end(), more.begin(), more.end());
    return RunPlumb(line);
  }

  plumb::testing::TempFolder temp_;
  std::string model_ = temp_ / "model", rows_ = temp_ / "rows.jsonl";
};

constexpr char kParts[] =
    "[[reward.parts]]\nname = \"correct\"\nkind = \"answer\"\nargs = [\"fallback=last_number\"]\n"
    "[[reward.parts]]\nname = \"short\"\nkind = \"length\"\nweight = 0.5\ntarget_tokens = 1\n"
    "max_tokens = 6\n";

TEST_F(EvalCommandTest, ARecipesPartsJudgeTheAnswers) {
  const CliOutput output =
      Eval({"--rewards", Recipe(kParts), "--samples", "4", "--out", temp_ / "answers.jsonl"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto json = nlohmann::json::parse(output.out);
  EXPECT_EQ(json["answers"], 48);
  ASSERT_EQ(json["parts"].size(), 2u);
  EXPECT_EQ(json["parts"][1]["name"], "short");
  EXPECT_EQ(json["parts"][1]["scored"], 48);
  const auto lines = JsonLines(RealFileSystem().ReadFile(temp_ / "answers.jsonl", 1 << 20));
  ASSERT_EQ(lines.size(), 48u);
  double reward = 0, shortness = 0, correct = 0;
  for (const auto& line : lines) {
    reward += line["reward"].get<double>();
    shortness += line["parts"]["short"].get<double>();
    correct += line["correct"].get<bool>();
    EXPECT_NEAR(line["reward"].get<double>(),
                line["parts"]["correct"].get<double>() + 0.5 * line["parts"]["short"].get<double>(),
                1e-9);
  }
  EXPECT_NEAR(json["reward"]["mean"].get<double>(), reward / 48, 1e-9);
  EXPECT_NEAR(json["parts"][1]["mean"].get<double>(), shortness / 48, 1e-9);
  EXPECT_NEAR(json["pass_at_1"].get<double>(), correct / 48, 1e-9);
  EXPECT_LE(json["pass_at_k"]["1"]["mean"], json["pass_at_k"]["4"]["mean"]);
  EXPECT_NEAR(json["pass_at_k"]["4"]["mean"].get<double>(),
              json["solved_prompts"].get<double>() / 12, 1e-9);
  EXPECT_TRUE(json.contains("majority"));
  EXPECT_GT(json["reward"]["standard_error"], 0.0);
  // The other part may be the one that says what is right.
  const auto other = nlohmann::json::parse(
      Eval({"--rewards", Recipe(std::string("[eval]\nsuccess_part = \"short\"\n") + kParts)}).out);
  EXPECT_GT(other["pass_at_1"], json["pass_at_1"]);
  EXPECT_FALSE(other.contains("majority")) << "one sample";
}

TEST_F(EvalCommandTest, TextForPeopleSaysTheSame) {
  const CliOutput output = RunPlumb({"eval", model_, rows_, "--max-new-tokens", "6", "--rewards",
                                     Recipe(kParts), "--samples", "2", "--threads", "1"});
  ASSERT_EQ(output.code, 0) << output.err;
  for (const char* part : {"pass@1 ", "pass@2 ", "majority of 2", "reward ", "  correct ",
                           "  short ", " x 0.5", "+- ", "tokens/s"})
    EXPECT_TRUE(Has(output.out, part)) << part << "\n" << output.out;
  EXPECT_TRUE(Has(output.out, " answers right by 'correct', temperature 1\n")) << output.out;
  const CliOutput other =
      RunPlumb({"eval", model_, rows_, "--max-new-tokens", "6", "--rewards",
                Recipe(std::string("[eval]\nsuccess_part = \"short\"\n") + kParts)});
  EXPECT_TRUE(Has(other.out, " answers right by 'short', temperature 0\n")) << other.out;
  // Without a recipe pass@1 is all that its one rule has to say.
  const CliOutput plain = RunPlumb({"eval", model_, rows_, "--max-new-tokens", "6"});
  EXPECT_TRUE(Has(plain.out, "pass@1 ") && !Has(plain.out, "  correct ")) << plain.out;
  EXPECT_TRUE(Has(plain.out, " answers right, temperature 0\n")) << plain.out;
}

// A 0 that nothing could have been else is not read as one of the model.
TEST_F(EvalCommandTest, WhereNoAnswerWasMarkedThatIsSaidBeforeTheShareOfRightOnes) {
  const CliOutput none = RunPlumb({"eval", model_, rows_, "--max-new-tokens", "6"});
  const auto json = nlohmann::json::parse(
      RunPlumb({"eval", model_, rows_, "--max-new-tokens", "6", "--json"}).out);
  ASSERT_EQ(json["without_answer"], json["answers"]) << "answers of six tokens of a toy model";
  EXPECT_TRUE(none.out.starts_with(json["answers"].dump() + " of " + json["answers"].dump() +
                                   " answers mark nothing as the answer"))
      << none.out;
  EXPECT_EQ(none.out.find("mark nothing"), none.out.rfind("mark nothing")) << "once: " << none.out;
}

TEST_F(EvalCommandTest, APartThatFailsOnEveryAnswerIsExitCode10) {
  WriteFile(rows_, "{\"prompt\": \"1+1=\"}\n{\"prompt\": \"2+1=\"}\n");  // nothing to compare with
  const CliOutput output = Eval({"--rewards", Recipe(kParts)});
  EXPECT_EQ(output.code, kExitRewardFailed) << output.err;
  EXPECT_TRUE(Has(output.err, "'correct' failed on every answer")) << output.err;
  const auto json = nlohmann::json::parse(output.out);
  EXPECT_EQ(json["unscored"], 2);
  EXPECT_EQ(json["parts"][0]["failed"], 2);
  EXPECT_EQ(json["parts"][0]["mean"], nullptr);
  EXPECT_TRUE(json["parts"][1]["mean"].is_number()) << "the other part has its say";
  EXPECT_EQ(json["reward"]["mean"], nullptr) << "a failure is no zero";
}

TEST_F(EvalCommandTest, ARecipeAlsoSaysHowItAsks) {
  WriteFile(temp_ / "other.jsonl",
            "{\"q\": \"1+1\", \"a\": 2}\n{\"q\": \"2+2\", \"a\": 4}\n{\"q\": \"3\", \"a\": 3}\n");
  const std::string recipe =
      Recipe("[data]\neval = \"" + (temp_ / "other.jsonl") +
             "\"\neval_skip = 1\nprompt_suffix = \"=\"\nmap = {prompt = \"q\", answer = \"a\"}\n"
             "[rollout]\nmax_new_tokens = 3\n[eval]\nsamples = 2\n" +
             kParts);
  const CliOutput output = RunPlumb({"eval", model_, "--recipe", recipe, "--threads", "1", "--json",
                                     "--answers", temp_ / "answers.jsonl"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto lines = JsonLines(RealFileSystem().ReadFile(temp_ / "answers.jsonl", 1 << 20));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["prompt"], "2+2=");
  EXPECT_EQ(nlohmann::json::parse(output.out)["samples"], 2);
  EXPECT_LE(nlohmann::json::parse(output.out)["tokens"], 12);
  EXPECT_EQ(RunPlumb({"eval", model_, "--recipe", Recipe(kParts)}).code, 2) << "no data.eval";
  EXPECT_EQ(RunPlumb({"eval", model_}).code, 2);
  EXPECT_EQ(Eval({"--recipe", recipe, "--rewards", recipe}).code, 2);
  EXPECT_EQ(Eval({"--set", "run.seed=2"}).code, 2);
  const CliOutput set = Eval({"--rewards", recipe, "--set", "reward.parts.1.weight=0"});
  EXPECT_EQ(nlohmann::json::parse(set.out)["parts"][1]["weight"], 0.0) << set.err;
}

TEST_F(EvalCommandTest, PairsAndTextsAreEvaluationsOfTheirOwn) {
  WriteFile(temp_ / "pairs.jsonl",
            "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n"
            "{\"prompt\": \"2+1=\", \"chosen\": \"3\", \"rejected\": \"30\"}\n");
  const CliOutput pairs =
      RunPlumb({"eval", model_, temp_ / "pairs.jsonl", "--pairs", "--reference", model_,
                "--threads", "1", "--json", "--out", temp_ / "values.jsonl"});
  ASSERT_EQ(pairs.code, 0) << pairs.err;
  EXPECT_EQ(nlohmann::json::parse(pairs.out)["pairs"], 2);
  EXPECT_EQ(nlohmann::json::parse(pairs.out)["accuracy"], 0.5);
  EXPECT_EQ(JsonLines(RealFileSystem().ReadFile(temp_ / "values.jsonl", 1 << 20)).size(), 2u);
  EXPECT_TRUE(
      Has(RunPlumb({"eval", model_, temp_ / "pairs.jsonl", "--pairs", "--threads", "1"}).out,
          "summed log-probs"));
  const CliOutput text = RunPlumb({"eval", model_, rows_, "--perplexity", "--map",
                                   "completion=answer", "--threads", "1", "--json"});
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(nlohmann::json::parse(text.out)["rows"], 12);
  EXPECT_GT(nlohmann::json::parse(text.out)["perplexity"], 1.0);
  EXPECT_EQ(Eval({"--pairs", "--perplexity"}).code, 2);
  EXPECT_EQ(Eval({"--reference", model_}).code, 2);
}

TEST_F(EvalCommandTest, GenerateAnswersAFileInItsOrder) {
  WriteFile(rows_,
            "{\"question\": \"1+1=\", \"answer\": \"2\"}\n{\"question\": 5}\n"
            "{\"question\": \"7+2=\", \"answer\": \"9\"}\n");
  const std::vector<std::string> line = {"generate",  model_, "--prompts",        rows_,
                                         "--samples", "2",    "--max-new-tokens", "6",
                                         "--threads", "1"};
  const CliOutput output = RunPlumb(line);
  EXPECT_EQ(output.code, kExitFewerSteps) << output.err;
  const auto lines = JsonLines(output.out);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["row"], 0);
  EXPECT_EQ(lines[3]["row"], 1);
  EXPECT_EQ(lines[3]["sample"], 1);
  EXPECT_EQ(lines[3]["prompt"], "7+2=");
  EXPECT_EQ(lines[3]["ground_truth"], "9");
  EXPECT_FALSE(lines[0].contains("tokens"));
  EXPECT_TRUE(Has(output.err, "used 2")) << output.err;
  std::vector<std::string> into = line;
  into.insert(into.end(), {"--out", temp_ / "out.jsonl", "--json"});
  EXPECT_EQ(RunPlumb(into).out, "");
  const auto same = JsonLines(RealFileSystem().ReadFile(temp_ / "out.jsonl", 1 << 20));
  ASSERT_EQ(same.size(), 4u);
  EXPECT_EQ(same[2]["completion"], lines[2]["completion"]);
  EXPECT_TRUE(same[2].contains("logprobs"));
  EXPECT_EQ(RunPlumb({"generate", model_, "--prompts", rows_, "--prompt", "1"}).code, 2);
}

// One row that the vocabulary cannot write does not take the others' answers away.
TEST_F(EvalCommandTest, ARowThatCannotBeTokenizedIsSkippedAndSaid) {
  WriteFile(
      rows_,
      "{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n{\"prompt\": \"h\u00e9\", \"answer\": \"2\"}\n"
      "no json\n{\"prompt\": \"2+2=\", \"answer\": \"4\"}\n");
  const std::string said =
      "2 of 4 rows were left out (1 bad_json, 1 untokenizable), the first: " + rows_ +
      ":2: untokenizable: the character 'h' is not in the vocabulary";
  const CliOutput generated =
      RunPlumb({"generate", model_, "--prompts", rows_, "--max-new-tokens", "4", "--threads", "1"});
  EXPECT_EQ(generated.code, kExitFewerSteps);
  EXPECT_TRUE(generated.err.ends_with("plumb: " + said + "\n")) << generated.err;
  const auto lines = JsonLines(generated.out);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["prompt"], "2+2=");

  const CliOutput evaluated = Eval({});
  EXPECT_EQ(evaluated.code, kExitFewerSteps);
  EXPECT_TRUE(evaluated.err.ends_with("plumb: " + said + "\n")) << evaluated.err;
  const auto json = nlohmann::json::parse(evaluated.out);
  EXPECT_EQ(json["prompts"], 2);
  EXPECT_EQ(json["left_out"], nlohmann::json::parse(R"({"bad_json": 1, "untokenizable": 1})"));

  // Nothing to ask at all is an error.
  WriteFile(rows_, "{\"prompt\": \"h\", \"answer\": \"2\"}\n");
  EXPECT_EQ(Eval({}).code, 2);
  EXPECT_TRUE(Has(Eval({}).err, rows_ + ":1: untokenizable")) << Eval({}).err;

  WriteFile(rows_,
            "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n"
            "{\"prompt\": \"1+2=\", \"chosen\": \"h\", \"rejected\": \"3\"}\n");
  const CliOutput pairs = RunPlumb({"eval", model_, rows_, "--pairs", "--threads", "1"});
  EXPECT_EQ(pairs.code, kExitFewerSteps) << pairs.err;
  EXPECT_TRUE(Has(pairs.err, "pairs 1 of 2 used (1 untokenizable), the first left out: " + rows_ +
                                 ", row 1: the character 'h'"))
      << pairs.err;
  EXPECT_TRUE(Has(pairs.out, "of 1 pairs") && !Has(pairs.out, "nan")) << pairs.out;

  WriteFile(rows_, "{\"text\": \"1+1=2\"}\n{\"text\": \"h\"}\n");
  const CliOutput texts = RunPlumb({"eval", model_, rows_, "--perplexity", "--threads", "1"});
  EXPECT_EQ(texts.code, kExitFewerSteps) << texts.err;
  EXPECT_TRUE(Has(texts.err, rows_ + ", row 2: the character 'h'")) << texts.err;
}

TEST_F(EvalCommandTest, AnswersAreWrittenInTheOrderOfTheFileWithoutEndTokens) {
  std::string rows;
  for (int i = 0; i < 60; ++i) {  // of every length, so that they end in any order
    std::string sum = "1";
    for (int k = 0; k < i * 7 % 27; ++k) sum += "+1";
    rows += nlohmann::json{{"prompt", sum + "="}, {"answer", "2"}}.dump() + "\n";
  }
  WriteFile(rows_, rows);
  const CliOutput output =
      RunPlumb({"eval", model_, rows_, "--threads", "1", "--samples", "3", "--max-new-tokens", "50",
                "--json", "--out", temp_ / "answers.jsonl"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto lines = JsonLines(RealFileSystem().ReadFile(temp_ / "answers.jsonl", 1 << 20));
  ASSERT_EQ(lines.size(), 180u);
  int stopped = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["row"], i / 3);
    EXPECT_EQ(lines[i]["sample"], i % 3);
    stopped += lines[i]["finish"] == "stop";
    EXPECT_FALSE(Has(lines[i]["completion"].get<std::string>(), "<eos>")) << lines[i];
  }
  EXPECT_GT(stopped, 0) << "no answer ended by itself: this shows nothing";
}

TEST_F(EvalCommandTest, WhatWouldBeIgnoredOrDestroyedIsRefused) {
  WriteFile(temp_ / "pairs.jsonl",
            "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n");
  const auto refused = [&](std::vector<std::string> line, const std::string& why) {
    const CliOutput output = RunPlumb(line);
    EXPECT_EQ(output.code, 2) << why;
    EXPECT_TRUE(Has(output.err, why)) << why << " is not in " << output.err;
  };
  refused({"eval", model_, temp_ / "pairs.jsonl", "--pairs", "--samples", "3"},
          "--samples: is for");
  refused({"eval", model_, temp_ / "pairs.jsonl", "--pairs", "--beta", "1"}, "--beta: is for");
  refused({"eval", model_, rows_, "--digits", "3"}, "--digits: is for generated sums");
  refused({"eval", model_, rows_, "--batch-tokens", "30"}, "--batch-tokens: is for");
  refused({"eval", model_, "arithmetic", "--map", "prompt=q"}, "--map: is for files");
  refused({"generate", model_, "--prompt", "1", "--limit", "3"}, "--limit: is for --prompts FILE");
  refused({"generate", model_, "--prompt", "1", "--map", "prompt=q"}, "--map: is for --prompts");
  const std::string rows = RealFileSystem().ReadFile(rows_, 1 << 20);
  refused({"eval", model_, rows_, "--out", rows_}, "is the file that is read");
  refused({"generate", model_, "--prompts", rows_, "--out", rows_}, "is the file that is read");
  refused({"eval", model_, rows_, "--out", temp_.path()}, "is a folder");
  EXPECT_EQ(RealFileSystem().ReadFile(rows_, 1 << 20), rows);
  refused({"generate", model_, "--prompt", "h"}, "--prompt: the character 'h'");
  refused({"generate", "", "--prompt", "1"}, "model: is empty");
}

TEST_F(EvalCommandTest, AFileOfAnswersIsReplacedOnlyWhenAsked) {
  const std::string out = temp_ / "answers.jsonl";
  for (std::vector<std::string> line :
       {std::vector<std::string>{"generate", model_, "--prompt", "1+1="},
        {"eval", model_, rows_, "--limit", "2"}}) {
    line.insert(line.end(), {"--max-new-tokens", "4", "--threads", "1"});
    WriteFile(out, "mine\n");
    std::vector<std::string> into = line;
    into.insert(into.end(), {"--out", out});
    const CliOutput refused = RunPlumb(into);
    EXPECT_EQ(refused.code, 2) << refused.err;
    EXPECT_TRUE(Has(refused.err, "replace it with --overwrite")) << refused.err;
    EXPECT_EQ(RealFileSystem().ReadFile(out, 1 << 20), "mine\n");
    into.emplace_back("--overwrite");
    const CliOutput replaced = RunPlumb(into);
    EXPECT_EQ(replaced.code, 0) << replaced.err;
    EXPECT_NE(RealFileSystem().ReadFile(out, 1 << 20), "mine\n");
    line.emplace_back("--overwrite");
    EXPECT_TRUE(Has(RunPlumb(line).err, "--overwrite: is for --out")) << line[0];
  }
}

TEST_F(EvalCommandTest, LinesOfTextAreToldWhatAFileHolds) {
  WriteFile(temp_ / "q.txt", "1+1=\n2+2=\n");
  const CliOutput output = RunPlumb({"generate", model_, "--prompts", temp_ / "q.txt"});
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, "a file holds one JSON object a line")) << output.err;
  EXPECT_TRUE(
      Has(output.err, "jq -Rc '{prompt: .}' " + temp_ / "q.txt" + " > " + temp_ / "q.jsonl"))
      << output.err;
}

TEST_F(EvalCommandTest, WhatIsNoModelIsNamedWithWhatTakesIt) {
  ASSERT_EQ(RunPlumb({"data", "import", rows_, "--store", temp_ / "store", "--quiet"}).code, 0);
  const std::string store = temp_ / "store";
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"generate", store, "--prompt", "1"},
        {"eval", store, rows_},
        {"score", store, rows_},
        {"chat", store},
        {"model", "info", store}}) {
    const CliOutput output = RunPlumb(verb);
    EXPECT_EQ(output.code, 3) << verb[0];
    EXPECT_TRUE(Has(output.err, "is a store, not a model: `" + ProgramCall() + " store inspect " +
                                    store + "` looks into it"))
        << output.err;
  }
  for (const char* verb : {"inspect", "verify", "explain", "export"}) {
    const CliOutput output = RunPlumb({"store", verb, model_});
    EXPECT_EQ(output.code, 3) << verb;
    EXPECT_TRUE(Has(output.err, "is a model folder, not a store: `" + ProgramCall() +
                                    " model info " + model_ + "`"))
        << output.err;
  }
  // A store is not made among the files of something else.
  const CliOutput import = RunPlumb({"data", "import", rows_, "--store", model_});
  EXPECT_EQ(import.code, 2);
  EXPECT_TRUE(Has(import.err, "is a model folder, not a store")) << import.err;
  EXPECT_FALSE(RealFileSystem().Exists(model_ + "/CURRENT"));
  EXPECT_TRUE(Has(RunPlumb({"config", "show", model_}).err, "is a model folder, not a recipe"));
  EXPECT_TRUE(Has(RunPlumb({"watch", model_}).err, "is a model folder, not a run's folder"));
  EXPECT_TRUE(Has(RunPlumb({"report", model_}).err, "is a model folder, not a run's folder"));
}

TEST_F(EvalCommandTest, AnAnswerIsTheSameWhileItIsDrawn) {
  std::vector<std::string> line = {
      "generate", model_,      "--prompt", "12+3=",  "--max-new-tokens",
      "20",       "--threads", "1",        "--seed", "3"};
  const std::string whole = RunPlumb(line).out;
  line.push_back("--stream");
  EXPECT_EQ(RunPlumb(line).out, whole);
  EXPECT_GT(whole.size(), 1u);
}

TEST_F(EvalCommandTest, TheModelsOwnSamplingIsTheDefaultAndSaid) {
  const std::vector<std::string> line = {
      "generate",         model_, "--prompt",  "1+2=", "--samples", "4",
      "--max-new-tokens", "6",    "--threads", "1"};
  const std::string before = RunPlumb(line).out;
  WriteFile(model_ + "/generation_config.json", R"({"eos_token_id": 2, "temperature": 0.3})");
  const CliOutput colder = RunPlumb(line);
  EXPECT_TRUE(Has(colder.err, "temperature 0.3")) << colder.err;
  EXPECT_NE(colder.out, before);
  std::vector<std::string> asked = line;
  asked.insert(asked.end(), {"--temperature", "1"});
  EXPECT_EQ(RunPlumb(asked).out, before);
  EXPECT_FALSE(Has(RunPlumb(asked).err, "temperature"));
}

TEST_F(EvalCommandTest, NamesOfTheHubAreExplained) {
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"generate", "Qwen/Qwen3-0.6B", "--prompt", "1"},
        {"eval", "Qwen/Qwen3-0.6B", "arithmetic"},
        {"eval", "Qwen/Qwen3-0.6B", rows_, "--pairs"},
        {"score", "Qwen/Qwen3-0.6B", rows_},
        {"chat", "Qwen/Qwen3-0.6B"},
        {"model", "info", "Qwen/Qwen3-0.6B"}}) {
    const CliOutput output = RunPlumb(verb);
    EXPECT_EQ(output.code, 3) << verb[0];
    EXPECT_TRUE(Has(output.err, "hf download Qwen/Qwen3-0.6B --local-dir models/Qwen3-0.6B"))
        << verb[0] << ": " << output.err;
  }
  EXPECT_FALSE(Has(RunPlumb({"generate", temp_ / "none", "--prompt", "1"}).err, "hf download"));
  WriteFile(temp_ / "model.gguf", "GGUF");
  EXPECT_TRUE(Has(RunPlumb({"generate", temp_ / "model.gguf", "--prompt", "1"}).err,
                  ProgramCall() + " convert"));
  // An adapter whose base is a name of the hub.
  policy_model::Weights weights = testing::ToyWeights();
  weights.AddAdapter({.rank = 2}, 1);
  policy_model::SaveModelDirectory(weights, temp_ / "adapter", "", "Qwen/Qwen3-0.6B");
  const CliOutput adapter = RunPlumb({"generate", temp_ / "adapter", "--prompt", "1"});
  EXPECT_EQ(adapter.code, 3);
  EXPECT_TRUE(Has(adapter.err, "hf download Qwen/Qwen3-0.6B") &&
              Has(adapter.err, "base_model_name_or_path"))
      << adapter.err;
}

}  // namespace
}  // namespace plumb::run
