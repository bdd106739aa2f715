// plumb reward test: samples from a file and from the recipe's data, tables, JSON, failures, bad
// input.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "run/session/reward_samples.h"
#include "tests/run/cli_runner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

constexpr char kRecipe[] = PLUMB_SOURCE_DIR "/configs/arithmetic_grpo.toml";

void Write(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

// Reward processes are started from the program itself. Returns its exit code; what it said goes to
// `out`.
int RunProgram(const std::string& arguments, const std::string& out) {
  const int status = std::system(
      ("timeout 60 " PLUMB_BINARY_DIR "/plumb reward test " + arguments + " > " + out + " 2>&1")
          .c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(RewardTestCommand, MakesSamplesFromTheRecipesData) {
  const auto output = RunPlumb({"reward", "test", kRecipe, "--json"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto json = nlohmann::json::parse(output.out);
  ASSERT_EQ(json["samples"].size(), 12u);
  for (const auto& sample : json["samples"]) {
    const double value = sample["parts"].begin().value()["value"];
    const std::string label = sample["sample"];
    if (label == "gold_tagged") {
      EXPECT_EQ(value, 1) << sample;
    }
    if (label == "wrong" || label == "empty") {
      EXPECT_EQ(value, 0) << sample;
    }
    EXPECT_GE(sample["seconds"].get<double>(), 0);
  }
  const auto& part = json["parts"][0];
  EXPECT_EQ(part["calls"], 3);
  EXPECT_EQ(part["scored"], 12);
  EXPECT_EQ(part["failed"], 0);
  EXPECT_EQ(part["max"], 1);
  EXPECT_LE(part["seconds_p50"], part["seconds_p99"]);
}

TEST(RewardTestCommand, ScoresAFileThroughTheProgram) {
  const TempFolder temp;
  Write(
      temp / "samples.jsonl",
      R"({"prompt": "1+1=", "answer": "2", "completion": "<think>1+1=2</think><answer>2</answer>"})"
      "\n\n"
      R"({"prompt": "1+1=", "answer": 2, "response": "3"})"
      "\n"
      R"({"prompt": "2+2=", "answer": "4", "completions": ["<answer>4</answer>", "<answer>5</answer>"]})"
      "\n");
  ASSERT_EQ(
      RunProgram(std::string(kRecipe) + " --part correct --samples " + (temp / "samples.jsonl"),
                 temp / "out"),
      0)
      << testing::Read(temp / "out");
  const std::string text = testing::Read(temp / "out");
  for (const char* part :
       {"line 1", "line 3", "line 4", "correct x 1", "total", "1.000", "0.000", "p99", "0.500"}) {
    EXPECT_TRUE(Has(text, part)) << part << "\n" << text;
  }
}

// A newcomer's first file: reward parts and nothing else, on texts that no built-in vocabulary has.
TEST(RewardTestCommand, PartsAloneAreEnoughForSamples) {
  const TempFolder temp;
  Write(temp / "parts.toml",
        "[[reward.parts]]\nname = \"kind\"\nkind = \"contains\"\nargs = [\"words=please\"]\n");
  Write(temp / "samples.jsonl",
        R"({"prompt": [{"role": "user", "content": "Ünder?"}], "completion": "Yes, please!"})"
        "\n");
  const auto output = RunPlumb(
      {"reward", "test", temp / "parts.toml", "--samples", temp / "samples.jsonl", "--json"});
  ASSERT_EQ(output.code, 0) << output.err;
  const auto sample = nlohmann::json::parse(output.out)["samples"][0];
  EXPECT_EQ(sample["reward"], 1);
  EXPECT_TRUE(sample["ground_truth"].is_null()) << sample;
  Write(
      temp / "tokens.toml",
      "[[reward.parts]]\nname = \"short\"\nkind = \"length\"\ntarget_tokens = 4\nmax_tokens = 8\n");
  const auto counted =
      RunPlumb({"reward", "test", temp / "tokens.toml", "--samples", temp / "samples.jsonl"});
  EXPECT_EQ(counted.code, kExitRewardFailed) << "no tokens, no score";
  EXPECT_TRUE(Has(counted.out, "came as text")) << counted.out;
  Write(temp / "model.toml",
        "[[reward.parts]]\nname = \"m\"\nkind = \"reward_model\"\npath = \"x\"\n");
  EXPECT_TRUE(Has(
      RunPlumb({"reward", "test", temp / "model.toml", "--samples", temp / "samples.jsonl"}).err,
      "[model] path"));
  EXPECT_TRUE(Has(RunPlumb({"reward", "test", temp / "parts.toml"}).err, "data.train is missing"))
      << "samples have to come from somewhere";
}

TEST(RewardTestCommand, APartThatAlwaysFailsIsAnExitCode) {
  const TempFolder temp;
  Write(temp / "recipe.toml",
        testing::Read(kRecipe) +
            "\n[[reward.parts]]\nname = \"shell\"\nkind = \"program\"\npath = \"sh\"\n"
            "args = [\"-c\", \"read l; echo nonsense\"]\n");
  EXPECT_EQ(RunProgram((temp / "recipe.toml") + " --set reward.retries=0", temp / "out"),
            kExitRewardFailed);
  const std::string text = testing::Read(temp / "out");
  for (const char* part : {"'shell' failed on every sample", "bad_reply", "dropped"})
    EXPECT_TRUE(Has(text, part)) << part << "\n" << text;
  EXPECT_EQ(RunPlumb({"reward", "test", temp / "recipe.toml", "--part", "correct"}).code, 0)
      << "the others alone are well";
}

// Of all calls and attempts, and not as if the function had said it of an answer.
TEST(RewardTestCommand, AnExceptionIsSaidOnceWithItsSamples) {
  const TempFolder temp;
  Write(temp / "bad.py",
        "def bad(prompts, completions, **kwargs):\n    return [1 / 0 for c in completions]\n");
  Write(temp / "recipe.toml",
        "[[reward.parts]]\nname = \"x\"\nkind = \"python\"\npath = \"bad.py\"\n");
  std::string samples;
  for (int i = 0; i < 6; ++i)
    samples += "{\"prompt\": \"" + std::to_string(i / 2) + "\", \"completion\": \"" +
               std::to_string(i) + "\"}\n";
  Write(temp / "samples.jsonl", samples);
  EXPECT_EQ(
      RunProgram((temp / "recipe.toml") + " --samples " + (temp / "samples.jsonl"), temp / "out"),
      kExitRewardFailed);
  const std::string text = testing::Read(temp / "out");
  EXPECT_TRUE(Has(text,
                  "6 samples: line 1, line 2, line 3, line 4, line 5, line 6; part 'x': "
                  "raised: ZeroDivisionError: division by zero"))
      << text;
  EXPECT_FALSE(Has(text, "reported")) << text;
  EXPECT_FALSE(Has(text, "on group")) << text;
  size_t said = 0;
  for (size_t at = 0; (at = text.find("ZeroDivisionError", at)) != std::string::npos; ++at) ++said;
  EXPECT_EQ(said, 2u) << "in the table and as why the exit code is 10\n" << text;
}

// A function of texts that is given messages says the same of all and raises nothing.
TEST(RewardTestCommand, APartThatSaysTheSameOfAllAnswersIsNamedWithTheFormItWasGiven) {
  const TempFolder temp;
  Write(temp / "yes.py",
        "def score(completions, **kwargs):\n    return [float('yes' in c) for c in completions]\n");
  Write(temp / "yes.toml",
        "[[reward.parts]]\nname = \"yes\"\nkind = \"python\"\npath = \"yes.py\"\n");
  Write(temp / "samples.jsonl",
        R"({"prompt": [{"role": "user", "content": "?"}], "completions": ["yes", "no"]})"
        "\n");
  const std::string line = (temp / "yes.toml") + " --samples " + (temp / "samples.jsonl");
  ASSERT_EQ(RunProgram(line, temp / "out"), 0) << testing::Read(temp / "out");
  const std::string text = testing::Read(temp / "out");
  EXPECT_TRUE(Has(text, "note: reward part 'yes' gave 0.000 to all 2 answers")) << text;
  EXPECT_TRUE(Has(text, "args = [\"completions=text\"] gives it TEXT alone")) << text;
  ASSERT_EQ(RunProgram(line + " --set 'reward.parts.0.args=[\"completions=text\"]'", temp / "out"),
            0);
  EXPECT_FALSE(Has(testing::Read(temp / "out"), "note:")) << testing::Read(temp / "out");
}

TEST(RewardTestCommand, ARecipeWithoutPartsIsToldSo) {
  const TempFolder temp;
  Write(temp / "sft.toml", "[algorithm]\nname = \"sft\"\n[data]\ntrain = \"arithmetic\"\n");
  const auto output = RunPlumb({"reward", "test", temp / "sft.toml"});
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, "has no [[reward.parts]]")) << output.err;
  EXPECT_TRUE(Has(output.err, "trains without rewards")) << output.err;
}

TEST(RewardTestCommand, BadInputIsSaidWithItsLine) {
  const TempFolder temp;
  const auto refused = [&](const std::string& rows, int code) {
    Write(temp / "bad.jsonl", rows);
    const auto output = RunPlumb({"reward", "test", kRecipe, "--samples", temp / "bad.jsonl"});
    EXPECT_EQ(output.code, code) << output.out;
    return output.err;
  };
  const std::string good = R"({"prompt": "1+1=", "answer": "2", "completion": "2"})"
                           "\n";
  EXPECT_TRUE(Has(refused(good + "{\"prompt\": \"1+1=\"", 2), "bad.jsonl:2"));
  EXPECT_TRUE(Has(refused(good + good + R"({"prompt": "1+1=", "answer": "2"})", 2), "bad.jsonl:3"));
  EXPECT_TRUE(Has(refused(R"({"prompt": "1+1="})", 2), "no answer to score"));
  EXPECT_TRUE(Has(refused(R"({"answer": "1", "completion": "2"})", 2), "bad.jsonl:1"));
  EXPECT_TRUE(Has(refused(R"({"prompt": "1+1=", "completion": 5})", 2), "neither a text"));
  EXPECT_TRUE(Has(refused("[1]\n", 2), "one JSON object"));
  EXPECT_TRUE(Has(refused("", 2), "no samples"));
  EXPECT_TRUE(
      Has(refused(R"({"prompt": "1+1=", "answer": "2", "completion": "two"})", 2), "line 1"));
  EXPECT_EQ(RunPlumb({"reward", "test", kRecipe, "--samples", temp / "nowhere.jsonl"}).code, 3);
  EXPECT_EQ(RunPlumb({"reward", "test", temp / "nowhere.toml"}).code, 3);
  const auto unknown = RunPlumb({"reward", "test", kRecipe, "--part", "nope"});
  EXPECT_EQ(unknown.code, 3);
  EXPECT_TRUE(Has(unknown.err, "its parts: correct")) << unknown.err;
  EXPECT_EQ(RunPlumb({"reward", "test"}).code, 2);
}

TEST(RewardTestCommand, AModelThatIsMissingIsSaidWithThePlacesTried) {
  const TempFolder temp;
  Write(temp / "r.toml",
        "[model]\npath = \"no/such/model\"\n[data]\ntrain = \"arithmetic\"\n"
        "[[reward.parts]]\nkind = \"length\"\ntarget_tokens = 4\nmax_tokens = 24\n");
  Write(temp / "samples.jsonl", R"({"prompt": "1+1=", "answer": "2", "completion": "2"})");
  for (const std::vector<std::string>& more :
       {std::vector<std::string>(), {"--samples", temp / "samples.jsonl"}}) {
    std::vector<std::string> line = {"reward", "test", temp / "r.toml"};
    line.insert(line.end(), more.begin(), more.end());
    const auto output = RunPlumb(line);
    EXPECT_EQ(output.code, 3) << output.out;
    EXPECT_TRUE(Has(output.err, "model.path = \"no/such/model\" is not there: looked for ") &&
                Has(output.err, temp / "no/such/model"))
        << output.err;
  }
}

// Before a row is read, by the verbs that try a reward and that train with it.
TEST(RewardTestCommand, AFileOfARewardThatIsMissingIsSaidWithThePlacesTried) {
  const TempFolder temp;
  Write(temp / "r.toml",
        "[data]\ntrain = \"rows.jsonl\"\n[[reward.parts]]\nname = \"mine\"\nkind = \"python\"\n"
        "path = \"no/such.py\"\n");
  Write(temp / "rows.jsonl", "not read yet");
  for (const std::vector<std::string>& line :
       {std::vector<std::string>{"reward", "test", temp / "r.toml"},
        {"train", temp / "r.toml", "--out", temp / "run"}}) {
    const auto output = RunPlumb(line);
    EXPECT_EQ(output.code, 3) << output.out;
    EXPECT_TRUE(Has(output.err, "'mine': path = \"no/such.py\" is not there: looked for ") &&
                Has(output.err, temp / "no/such.py"))
        << output.err;
  }
  EXPECT_FALSE(RealFileSystem().Exists(temp / "run"));
}

TEST(RewardSamples, AConversationIsAPromptAndItsLastAnswer) {
  const TempFolder temp;
  Write(
      temp / "chat.jsonl",
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "unit": "km"})"
      "\n");
  const auto samples = ReadRewardSamples(temp / "chat.jsonl", configs::Config());
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_EQ(samples[0].completion, "Hello");
  ASSERT_EQ(samples[0].prompt.messages.size(), 1u);
  EXPECT_EQ(samples[0].prompt.messages[0].content, "Hi");
  EXPECT_TRUE(Has(samples[0].prompt.extra_json, "km"));
}

}  // namespace
}  // namespace plumb::run
