// generate, score, eval and convert on a tiny model folder.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/memory/weights.h"
#include "run/session/model_folder.h"
#include "tests/run/cli_runner.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/standard_input.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::JsonLines;
using testing::RunPlumb;

class ModelCommandsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = temp_ / "model";
    testing::WriteToyModel(model_);
  }

  TempFolder temp_;
  std::string model_;
};

TEST_F(ModelCommandsTest, SameSeedSameAnswersAndScoreAgrees) {
  const std::vector<std::string> line = {
      "generate",         model_, "--prompt", "1+2=", "--prompt", "9-4=",      "--samples", "3",
      "--max-new-tokens", "12",   "--seed",   "7",    "--json",   "--threads", "1"};
  const CliOutput first = RunPlumb(line);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(RunPlumb(line).out, first.out);
  std::vector<std::string> other = line;
  other[11] = "8";
  EXPECT_NE(RunPlumb(other).out, first.out) << "another seed";

  const auto answers = JsonLines(first.out);
  ASSERT_EQ(answers.size(), 6u);
  EXPECT_EQ(answers[0]["prompt"], "1+2=");
  EXPECT_EQ(answers[5]["prompt"], "9-4=");

  // The log-probs of generation are those that score computes for the same tokens.
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  std::string rows;
  std::vector<size_t> prompt_lengths;
  for (const auto& answer : answers) {
    std::vector<int32_t> tokens = tokenizer->Encode("<bos>" + answer["prompt"].get<std::string>());
    prompt_lengths.push_back(tokens.size());
    for (const auto& id : answer["tokens"]) tokens.push_back(id.get<int32_t>());
    rows += nlohmann::json{{"tokens", tokens}}.dump() + "\n";
  }
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", rows);
  for (const char* batch : {"1", "40", "4096"}) {
    const CliOutput scored = RunPlumb(
        {"score", model_, temp_ / "rows.jsonl", "--batch-tokens", batch, "--threads", "1"});
    ASSERT_EQ(scored.code, 0) << scored.err;
    const auto scores = JsonLines(scored.out);
    ASSERT_EQ(scores.size(), answers.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(scores[i]["line"], i + 1);
      EXPECT_TRUE(scores[i]["logprobs"][0].is_null());
      for (size_t k = 0; k < answers[i]["logprobs"].size(); ++k) {
        ASSERT_NEAR(scores[i]["logprobs"][prompt_lengths[i] + k].get<double>(),
                    answers[i]["logprobs"][k].get<double>(), 2e-5)
            << "batch " << batch << " row " << i << " token " << k;
      }
    }
  }
}

// As published models are: the head has more rows than the tokenizer has tokens. It is the model
// without those rows.
TEST_F(ModelCommandsTest, AHeadPaddedBeyondTheTokenizerIsTheModelWithoutThoseRows) {
  policy_model::ModelShape shape = policy_model::ReadModelConfig(model_);
  policy_model::Weights small(shape, Device::kCpu, DType::kFloat32);
  small.Load(model_);
  const int64_t tokens = shape.vocab;
  shape.vocab += 98;
  policy_model::Weights padded(shape, Device::kCpu, DType::kFloat32);
  padded.Initialise(9, 3.0);  // rows that would be drawn at once
  for (const auto& from : small.table().entries()) {
    for (const auto& to : padded.table().entries()) {
      if (to.name == from.name)
        std::copy_n(small.flat().f32() + from.offset, from.elements,
                    padded.flat().f32() + to.offset);
    }
  }
  const std::string folder = temp_ / "padded";
  policy_model::SaveModelDirectory(padded, folder, model_ + ".tokenizer");
  const auto generate = [&](const std::string& model) {
    return RunPlumb({"generate", model, "--prompt", "1+2=", "--samples", "20", "--max-new-tokens",
                     "12", "--json", "--threads", "1"});
  };
  const CliOutput answers = generate(folder);
  ASSERT_EQ(answers.code, 0) << answers.err;
  for (const auto& line : JsonLines(answers.out)) {
    for (const auto& id : line["tokens"]) EXPECT_LT(id.get<int64_t>(), tokens);
  }
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", "{\"text\":\"1+2=3\"}\n{\"tokens\":[1,7," +
                                                             std::to_string(tokens) + "]}\n");
  const auto a = JsonLines(RunPlumb({"score", model_, temp_ / "rows.jsonl"}).out),
             b = JsonLines(RunPlumb({"score", folder, temp_ / "rows.jsonl"}).out);
  ASSERT_EQ(b.size(), 2u);
  EXPECT_NEAR(b[0]["sum"].get<double>(), a[0]["sum"].get<double>(), 1e-4);
  EXPECT_TRUE(Has(b[1]["error"].get<std::string>(), "no token")) << b[1];
  // A run over it samples and trains on.
  RealFileSystem().WriteFileAtomic(
      temp_ / "train.toml",
      "[run]\nthreads = 1\n[model]\npath = \"" + folder +
          "\"\n[data]\ntrain = \"arithmetic\"\n[rollout]\nprompts_per_step = 2\nsamples_per_prompt "
          "= 4\nmax_new_tokens = 8\nkv_budget_mb = 64\n"
          "[[reward.parts]]\nname = \"short\"\nkind = \"length\"\ntarget_tokens = 1\nmax_tokens = "
          "8\n[algorithm]\nname = \"grpo\"\n");
  const CliOutput run =
      RunPlumb({"train", temp_ / "train.toml", "--out", temp_ / "run", "--steps", "3", "--quiet"});
  EXPECT_EQ(run.code, 0) << run.err;
}

TEST_F(ModelCommandsTest, GreedyTakesTheLikeliestWhateverTheSeed) {
  const auto greedy = [&](const std::string& seed) {
    return RunPlumb({"generate", model_, "--prompt", "1+2=", "--greedy", "--max-new-tokens", "8",
                     "--seed", seed})
        .out;
  };
  EXPECT_EQ(greedy("1"), greedy("2"));
  EXPECT_EQ(
      RunPlumb({"generate", model_, "--prompt", "1+2=", "--top-k", "1", "--max-new-tokens", "8"})
          .out,
      greedy("1"));
}

TEST_F(ModelCommandsTest, AnswersEndWithTheModelsPositions) {
  const CliOutput output =
      RunPlumb({"generate", model_, "--prompt", std::string(60, '1'), "--json", "--stop", "zz"});
  ASSERT_EQ(output.code, 0) << output.err;
  EXPECT_LE(JsonLines(output.out)[0]["tokens"].size(), 3u);  // 64 positions, 60 characters, <bos>
  const CliOutput refused = RunPlumb({"generate", model_, "--prompt", std::string(64, '1')});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(Has(refused.err, "64 positions")) << refused.err;
  EXPECT_EQ(RunPlumb({"generate", model_, "--prompt", "1", "--system", "be brief"}).code, 2)
      << "no template to put it into";
}

TEST_F(ModelCommandsTest, AnAnswerThatEndedAtOnceIsCalledThat) {
  const CliOutput output = RunPlumb({"generate", model_, "--prompt", "1+2=", "--samples", "256",
                                     "--max-new-tokens", "2", "--threads", "1", "--json"});
  ASSERT_EQ(output.code, 0) << output.err;
  int64_t empty = 0;
  for (const auto& line : JsonLines(output.out))
    empty += line["completion"] == "" && line["finish"] == "stop" ? 1 : 0;
  ASSERT_GT(empty, 0);
  EXPECT_TRUE(Has(output.err, "(" + std::to_string(empty) + " of 256 answers ended at once)"))
      << output.err;
}

TEST_F(ModelCommandsTest, ScoreKeepsTheOrderAndSaysWhatItCannot) {
  RealFileSystem().WriteFileAtomic(
      temp_ / "rows.jsonl",
      "{\"text\":\"1+1\"}\n{\"tokens\":[5,99999]}\n\n{\"text\":\"1\",\"tokens\":[1]}\nnope\n"
      "{\"tokens\":[]}\n{\"text\":\"" +
          std::string(80, '1') + "\"}\n{\"text\":\"2\"}\n");
  const CliOutput output = RunPlumb({"score", model_, temp_ / "rows.jsonl"});
  EXPECT_EQ(output.code, 2) << "not every row has scores";
  const auto lines = JsonLines(output.out);
  ASSERT_EQ(lines.size(), 7u);
  const std::vector<int> numbers = {1, 2, 4, 5, 6, 7, 8};
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["line"], numbers[i]);
    EXPECT_EQ(lines[i].contains("error"), i >= 1 && i <= 5) << lines[i];
  }
  EXPECT_TRUE(Has(lines[1]["error"].get<std::string>(), "99999"));
  EXPECT_TRUE(Has(lines[5]["error"].get<std::string>(), "64 positions"));
  EXPECT_EQ(lines[0]["tokens"].size(), 4u) << "with <bos>";
  EXPECT_TRUE(Has(output.err, "5 of 7")) << output.err;
}

// Rows as `data export` writes them and users have them: what counts is the answer behind its
// prompt.
TEST_F(ModelCommandsTest, AnswersAreScoredBehindTheirPrompts) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  const auto ids = [&](const std::string& text) {
    return nlohmann::json(tokenizer->Encode(text)).dump();
  };
  const auto score = [&](const std::string& rows, const std::vector<std::string>& more = {}) {
    RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", rows);
    std::vector<std::string> line = {"score", model_, temp_ / "rows.jsonl", "--threads", "1"};
    line.insert(line.end(), more.begin(), more.end());
    return RunPlumb(line);
  };
  const auto whole = JsonLines(score("{\"tokens\":" + ids("<bos>1+1=2<eos>") + "}\n").out).at(0);
  const double sum =
      whole["logprobs"][5].get<double>() + whole["logprobs"][6].get<double>();  // 2 and <eos>
  for (const std::string row :
       {R"({"prompt":"1+1=","completion":"2"})", R"({"prompt":"1+1=","completion":"2","reward":1})",
        R"({"question":"1+1=","completion":[{"role":"assistant","content":"2"}]})"}) {
    const CliOutput output = score(row + "\n");
    ASSERT_EQ(output.code, 0) << output.err;
    const auto line = JsonLines(output.out).at(0);
    EXPECT_EQ(line["tokens"], whole["tokens"]) << row;
    EXPECT_EQ(line["answer_from"], 5);
    EXPECT_NEAR(line["sum"].get<double>(), sum, 1e-5);
    EXPECT_NEAR(line["mean"].get<double>(), sum / 2, 1e-5);
  }
  // As it was sampled: it was cut, and no end is put behind it.
  const std::string sampled = R"({"prompt":"1+1=","completion":"2","plumb_tokens":{"prompt":)" +
                              ids("<bos>1+1=") + R"(,"completion":)" + ids("2") + "}}\n";
  EXPECT_NEAR(JsonLines(score(sampled).out).at(0)["sum"].get<double>(),
              whole["logprobs"][5].get<double>(), 1e-5);
  const std::string pair = R"({"prompt":"1+1=","chosen":"2","rejected":"34"})";
  EXPECT_NEAR(JsonLines(score(pair, {"--answer", "chosen"}).out).at(0)["sum"].get<double>(), sum,
              1e-5);
  EXPECT_EQ(JsonLines(score(pair, {"--answer", "rejected"}).out).at(0)["tokens"].size(), 8u);
  EXPECT_TRUE(Has(score(pair).out, "--answer chosen"));
  EXPECT_EQ(score(pair, {"--answer", "better"}).code, 2);
  const std::string dialogue =
      R"({"messages":[{"role":"user","content":"1"},{"role":"assistant","content":"2"},)"
      R"({"role":"user","content":"3"},{"role":"assistant","content":"4"}]})";
  EXPECT_TRUE(Has(score(dialogue).out, "no chat template"));
  RealFileSystem().WriteFileAtomic(
      model_ + "/chat_template.jinja",
      "<bos>{% for m in messages %}{{ '-' if m.role == 'assistant' else '+' }}{{ m.content }}="
      "{% endfor %}{% if add_generation_prompt %}-{% endif %}");
  const auto last = JsonLines(score(dialogue).out).at(0);
  EXPECT_EQ(last["tokens"].dump(), ids("<bos>+1=-2=+3=-4="));
  EXPECT_EQ(last["answer_from"], 11) << "the last answer: 4=";
}

TEST_F(ModelCommandsTest, TheSameErrorOfManyRowsIsSaidOnceWithACount) {
  std::string rows;
  for (int i = 0; i < 100; ++i) rows += "{\"prompt\":\"" + std::to_string(i) + "\"}\n";
  const plumb::testing::StandardInput given(rows + "{\"text\":\"1\"}\n");
  const CliOutput output = RunPlumb({"score", model_, "-"});
  EXPECT_EQ(output.code, 2);
  const auto lines = JsonLines(output.out);
  ASSERT_EQ(lines.size(), 2u) << output.out;
  EXPECT_TRUE(Has(lines[0]["error"].get<std::string>(), "no answer to score"));
  EXPECT_EQ(lines[1]["line"], 101);
  EXPECT_TRUE(Has(output.err, "100 rows, the first in line 1: has a prompt and no answer"))
      << output.err;
  EXPECT_TRUE(Has(output.err, "standard input") && Has(output.err, "100 of 101")) << output.err;
}

// A shell's echo ends in a line end, which is no part of what is asked.
TEST_F(ModelCommandsTest, APromptOfStandardInputIsTheTextWithoutItsLineEnd) {
  const std::vector<std::string> line = {"generate",  model_,   "--prompt",         "-",
                                         "--greedy",  "--json", "--max-new-tokens", "4",
                                         "--threads", "1"};
  std::vector<std::string> plain = line;
  plain[3] = "12+34=";
  const plumb::testing::StandardInput given("12+34=\n");
  const CliOutput piped = RunPlumb(line);
  ASSERT_EQ(piped.code, 0) << piped.err;
  EXPECT_EQ(piped.out, RunPlumb(plain).out);
}

// Rows are in the file as soon as they are answered; a stop keeps them and says how many there are.
TEST_F(ModelCommandsTest, AStopKeepsTheRowsThatWereAnswered) {
  constexpr int kRows = 20000;
  std::string rows;
  for (int i = 0; i < kRows; ++i) rows += "{\"prompt\":\"" + std::to_string(i) + "+1=\"}\n";
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", rows);
  const std::string out = temp_ / "answers.jsonl";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen((temp_ / "said").c_str(), "w", stderr) == nullptr) _exit(99);
    std::vector<std::string> line = {"plumb",
                                     "generate",
                                     model_,
                                     "--prompts",
                                     temp_ / "rows.jsonl",
                                     "--out",
                                     out,
                                     "--max-new-tokens",
                                     "40",
                                     "--threads",
                                     "1"};
    std::vector<char*> argv;
    for (std::string& word : line) argv.push_back(word.data());
    const int code = RunCli(static_cast<int>(argv.size()), argv.data());
    std::fflush(stderr);
    _exit(code);
  }
  FileSystem& files = RealFileSystem();
  int status = 0;
  while (!(files.Exists(out) && files.FileSize(out) > 0)) {
    ASSERT_EQ(waitpid(child, &status, WNOHANG), 0)
        << "nothing was written: " << files.ReadFile(temp_ / "said", 1 << 20);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, SIGINT);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  const std::string said = files.ReadFile(temp_ / "said", 1 << 20);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kExitFewerSteps) << said;
  const auto lines = JsonLines(RealFileSystem().ReadFile(out, size_t{64} << 20));
  ASSERT_GT(lines.size(), 0u);
  ASSERT_LT(lines.size(), static_cast<size_t>(kRows));
  for (size_t i = 1; i < lines.size(); ++i) EXPECT_GT(lines[i]["row"], lines[i - 1]["row"]);
  EXPECT_EQ(lines[0]["row"], 0);
  EXPECT_TRUE(Has(said, "plumb: stopped: " + std::to_string(lines.size()) + " of " +
                            std::to_string(kRows) + " prompts are answered, in " + out + "\n"))
      << said;
}

TEST_F(ModelCommandsTest, ScoresOfWeightsThatAreNotFiniteAreAnError) {
  const ModelFolder sound = LoadModel(model_, {});
  policy_model::Weights weights(sound.shape, Device::kCpu, DType::kFloat32);
  weights.Load(model_);
  const auto& entry = weights.table().entries().back();
  static_cast<float*>(weights.flat().data())[entry.offset] = std::nanf("");
  policy_model::SaveModelDirectory(weights, temp_ / "broken", model_ + ".tokenizer");
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", "{\"text\":\"1+1\"}\n{\"text\":\"2\"}\n");
  const CliOutput output = RunPlumb({"score", temp_ / "broken", temp_ / "rows.jsonl"});
  EXPECT_EQ(output.code, 8) << output.err;
  EXPECT_TRUE(Has(output.err, "not finite") && Has(output.err, entry.name)) << output.err;
  EXPECT_EQ(output.out, "") << "what is no number is no score";
}

TEST_F(ModelCommandsTest, EvalCountsByTheAnswerRule) {
  // What the model says to these prompts is the ground truth of two of four rows.
  const auto said = [&](const std::string& prompt) {
    return JsonLines(RunPlumb({"generate", model_, "--prompt", prompt, "--greedy",
                               "--max-new-tokens", "8", "--json", "--special"})
                         .out)[0]["completion"]
        .get<std::string>();
  };
  std::string rows;
  int64_t right = 0;
  for (int i = 0; i < 12; ++i) {
    const std::string prompt = std::to_string(i) + "+" + std::to_string(i * 3 % 10) + "=";
    // The last run of digits of what it said, or a number that it cannot have said.
    std::string digits;
    for (const char c : said(prompt)) {
      if (std::isdigit(static_cast<unsigned char>(c))) digits += c;
      else if (!digits.empty()) digits += ' ';
    }
    while (!digits.empty() && digits.back() == ' ') digits.pop_back();
    if (const size_t space = digits.rfind(' '); space != std::string::npos)
      digits.erase(0, space + 1);
    const bool truth = i % 2 == 0 && !digits.empty();
    right += truth;
    rows += nlohmann::json{{"prompt", prompt}, {"answer", truth ? digits : "123456789123"}}.dump() +
            "\n";
  }
  ASSERT_GE(right, 3) << "the model says too few numbers for this test";
  rows += "{\"prompt\": 5}\n";
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", rows);
  const CliOutput output =
      RunPlumb({"eval", model_, temp_ / "rows.jsonl", "--max-new-tokens", "8", "--fallback",
                "last_number", "--json", "--answers", temp_ / "answers.jsonl"});
  ASSERT_EQ(output.code, 7) << "a row was left out: " << output.err;
  const auto json = nlohmann::json::parse(output.out);
  EXPECT_EQ(json["prompts"], 12);
  EXPECT_EQ(json["answers"], 12);
  // A sign or a decimal point that the simple reading above does not see can turn a right answer
  // wrong, never the reverse.
  EXPECT_LE(json["correct"].get<int64_t>(), right);
  EXPECT_GE(json["correct"].get<int64_t>(), (right + 1) / 2);
  EXPECT_NEAR(json["pass_at_1"].get<double>(), json["correct"].get<double>() / 12, 1e-12);
  EXPECT_LE(json["interval_95"][0].get<double>(), json["pass_at_1"].get<double>());
  EXPECT_TRUE(Has(json["rows"].get<std::string>(), "read 13 = used 12")) << json["rows"];
  EXPECT_EQ(JsonLines(RealFileSystem().ReadFile(temp_ / "answers.jsonl", 1 << 20)).size(), 12u);

  const CliOutput several = RunPlumb({"eval", model_, "arithmetic", "--limit", "6", "--samples",
                                      "2", "--max-new-tokens", "8", "--json"});
  ASSERT_EQ(several.code, 0) << several.err;
  EXPECT_EQ(nlohmann::json::parse(several.out)["answers"], 12);
  EXPECT_EQ(nlohmann::json::parse(several.out)["temperature"], 1.0);
}

TEST_F(ModelCommandsTest, EvalWithoutAnswersIsAnError) {
  RealFileSystem().WriteFileAtomic(temp_ / "rows.jsonl", "{\"prompt\": \"1+1=\"}\n");
  const CliOutput output = RunPlumb({"eval", model_, temp_ / "rows.jsonl"});
  EXPECT_EQ(output.code, 2);
  EXPECT_TRUE(Has(output.err, "ground truth")) << output.err;
}

TEST_F(ModelCommandsTest, ConvertRefusesWhatIsNoGguf) {
  RealFileSystem().WriteFileAtomic(temp_ / "file.gguf", "this is not a model");
  const CliOutput output = RunPlumb({"convert", temp_ / "file.gguf", temp_ / "out"});
  EXPECT_EQ(output.code, 4) << output.err;
  EXPECT_FALSE(RealFileSystem().Exists(temp_ / "out/config.json"));
  EXPECT_EQ(RunPlumb({"convert", temp_ / "none.gguf", temp_ / "out"}).code, 3);
  EXPECT_EQ(RunPlumb({"convert", temp_ / "file.gguf", temp_ / "out", "--dtype", "int8"}).code, 2);
}

TEST_F(ModelCommandsTest, AConversationGoesThroughTheChatTemplate) {
  RealFileSystem().WriteFileAtomic(model_ + "/chat_template.jinja",
                                   "<bos>{% for t in tools or [] %}{{ t.n }}{% endfor %}{% for m "
                                   "in messages %}{{ m.name }}{{ m.content }}="
                                   "{% endfor %}{{ more }}");
  RealFileSystem().WriteFileAtomic(
      temp_ / "list.json",
      R"([{"role": "user", "content": "1"}, {"role": "tool", "content": "2", "name": "7"}])");
  RealFileSystem().WriteFileAtomic(
      temp_ / "row.json", R"({"messages": [{"role": "user", "content": "1"}], "tools": [{"n": 5}],)"
                          R"( "chat_template_kwargs": {"more": 9}})");
  const std::vector<std::string> line = {"generate",          model_,       "--messages",
                                         temp_ / "list.json", "--messages", temp_ / "row.json",
                                         "--max-new-tokens",  "4",          "--json",
                                         "--greedy",          "--threads",  "1"};
  const CliOutput given = RunPlumb(line);
  ASSERT_EQ(given.code, 0) << given.err;
  const CliOutput raw =
      RunPlumb({"generate", model_, "--raw", "--prompt", "1=72=", "--prompt", "51=9",
                "--max-new-tokens", "4", "--json", "--greedy", "--threads", "1"});
  ASSERT_EQ(raw.code, 0) << raw.err;
  const auto a = JsonLines(given.out), b = JsonLines(raw.out);
  ASSERT_EQ(a.size(), 2u);
  ASSERT_EQ(b.size(), 2u);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(a[i]["tokens"], b[i]["tokens"]) << "the same prompt was asked";
  EXPECT_NE(a[0]["prompt"].get<std::string>().find("\"name\":\"7\""), std::string::npos);
  RealFileSystem().WriteFileAtomic(temp_ / "bad.json", R"([{"role": "bot", "content": "1"}])");
  EXPECT_TRUE(Has(RunPlumb({"generate", model_, "--messages", temp_ / "bad.json"}).err,
                  "unknown role 'bot'"));
  EXPECT_TRUE(Has(RunPlumb({"generate", model_}).err, "--messages FILE"));
  EXPECT_EQ(RunPlumb({"generate", model_, "--raw", "--messages", temp_ / "list.json"}).code, 2);
}

TEST_F(ModelCommandsTest, TheBeginTokenFollowsTheFiles) {
  const ModelFolder model = LoadModel(model_, {});
  EXPECT_EQ(model.dtype, DType::kFloat32) << "as config.json says";
  EXPECT_EQ(LoadModel(model_, {.dtype = "bfloat16"}).dtype, DType::kBFloat16);
  EXPECT_EQ(model.EncodeText("1").size(), 2u);
  EXPECT_EQ(model.EncodeText("<bos>1").size(), 2u) << "not twice";
  EXPECT_EQ(LoadModel(model_, {.bos = "no"}).EncodeText("1").size(), 1u);
  RealFileSystem().WriteFileAtomic(model_ + "/tokenizer_config.json", "{\"add_bos_token\": false}");
  EXPECT_TRUE(WantsBos(model_, model.shape, *model.tokenizer, "auto"))
      << "beside a tokenizer.json its post-processor decides";
  EXPECT_TRUE(WantsBos(model_, model.shape, *model.tokenizer, "yes"));
  EXPECT_THROW(WantsBos(model_, model.shape, *model.tokenizer, "maybe"), Error);
}

TEST_F(ModelCommandsTest, AnEvaluationOfSpoiltWeightsNamesThem) {
  policy_model::Weights weights(LoadModel(model_, {}).shape, Device::kCpu, DType::kFloat32);
  weights.Load(model_);
  weights.flat().f32()[weights.table().entries().back().offset] =
      std::numeric_limits<float>::quiet_NaN();
  policy_model::SaveModelDirectory(weights, temp_ / "spoilt", model_ + ".tokenizer");
  const CliOutput output = RunPlumb(
      {"eval", temp_ / "spoilt", "arithmetic", "--limit", "4", "--max-new-tokens", "8", "--json"});
  EXPECT_EQ(output.code, 8) << output.err;
  EXPECT_TRUE(Has(output.err, "not one answer was generated") &&
              Has(output.err, "logits are not finite"))
      << output.err;
  EXPECT_EQ(output.out, "") << "no answer is no pass@1";
}

}  // namespace
}  // namespace plumb::run
