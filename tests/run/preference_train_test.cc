// plumb train on pairs (run/roles/offline_roles.cc, run/session/preference_data.h): DPO and reward
// models from a file, resume, wrong input.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "learner/offline/reward_model_objective.h"
#include "policy_model/memory/weights.h"
#include "replay/store/store.h"
#include "run/session/overlong.h"
#include "run/session/preference_data.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

// Sums: the chosen answer is right, the rejected one has an extra digit.
std::string Pairs(const std::string& path) {
  std::string text;
  for (int i = 0; i < 120; ++i) {
    const std::string sum = std::to_string(i % 50 + i % 7);
    text += "{\"prompt\": \"" + std::to_string(i % 50) + "+" + std::to_string(i % 7) +
            "=\", \"chosen\": \"" + sum + "\", \"rejected\": \"" + sum + "0" +
            std::to_string(i % 10) + "\"}\n";
  }
  RealFileSystem().WriteFileAtomic(path, text);
  return path;
}

std::vector<std::string> Line(const TempFolder& temp, const std::string& name,
                              const std::string& out, int64_t steps,
                              const std::vector<std::string>& more = {}) {
  const std::string recipe = temp / (name + ".toml");
  RealFileSystem().WriteFileAtomic(
      recipe,
      "[run]\nthreads = 1\ncheckpoint_every = 5\n[checkpoint]\noptimizer = "
      "\"always\"\n[model]\nlayers = 1\nhidden = 32\nheads = "
      "2\nkv_heads = 2\nffn = 64\n"
      "max_positions = 64\nvocabulary = \"arithmetic\"\n[data]\ntrain = \"" +
          Pairs(temp / "pairs.jsonl") + "\"\n[algorithm]\nname = \"" + name +
          "\"\n[preference]\nbatch = 8\nheldout = 20\n[optimizer]\nlearning_rate = 3e-3\n");
  std::vector<std::string> line = {"train",  recipe, "--out", out, "--steps", std::to_string(steps),
                                   "--quiet"};
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(RealFileSystem().ReadFile(run + "/summary.json", 1 << 20));
}

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(RealFileSystem().ReadFile(path, 1 << 22));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST(PreferenceTrainTest, DpoLearnsFromAFileAndResumesBitForBit) {
  const TempFolder temp;
  const auto whole = RunPlumb(Line(temp, "dpo", temp / "whole", 30));
  ASSERT_EQ(whole.code, 0) << whole.err;
  const auto summary = Summary(temp / "whole");
  EXPECT_NEAR(summary["eval"]["before"]["loss"].get<double>(), std::log(2.0), 1e-9);
  EXPECT_EQ(summary["eval"]["before"]["accuracy"], 0.5) << "equal rewards tell nothing";
  EXPECT_LT(summary["eval"]["after"]["loss"].get<double>(), 0.6);
  EXPECT_GT(summary["eval"]["after"]["accuracy"].get<double>(), 0.9);
  EXPECT_TRUE(RealFileSystem().Exists(temp / "whole/model/model.safetensors"));
  ASSERT_EQ(RunPlumb(Line(temp, "dpo", temp / "parts", 12)).code, 0);
  const auto resumed = RunPlumb(Line(temp, "dpo", temp / "parts", 30, {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* hash : {"weights_sha256", "optimizer_sha256"})
    EXPECT_EQ(summary[hash], Summary(temp / "parts")[hash]) << hash;
  EXPECT_EQ(summary["eval"], Summary(temp / "parts")["eval"]);
  // The second life found the reference's log-probs in the store.
  EXPECT_GT(Summary(temp / "parts")["counters"]["reference/cache_hits"].get<int64_t>(), 0);
}

// A second run over the same pairs and the same start, with another beta, asks the reference
// nothing.
TEST(PreferenceTrainTest, ASecondRunFindsTheReferencesLogprobs) {
  const TempFolder temp;
  const auto run = [&](const std::string& name, const std::string& beta) {
    const auto got = RunPlumb(Line(temp, "dpo", temp / name, 14,
                                   {"--set", "preference.reference_cache=" + (temp / "cache"),
                                    "--set", "preference.beta=" + beta}));
    EXPECT_EQ(got.code, 0) << got.err;
    // since the start
    return Lines(temp / (name + "/metrics.jsonl")).back()["dpo/reference_forwards"].get<int64_t>();
  };
  // two sequences a pair: 20 pairs held out, 100 in the first 13 batches of 8
  const int64_t first = run("first", "0.1");
  EXPECT_GE(first, 2 * (20 + 100));
  EXPECT_LE(first, 2 * (20 + 13 * 8));
  EXPECT_EQ(run("second", "0.3"), 0);
  EXPECT_EQ(Summary(temp / "second")["counters"]["reference/cache_misses"], 0);
  EXPECT_NEAR(Summary(temp / "second")["eval"]["before"]["loss"].get<double>(), std::log(2.0),
              1e-9);
  const auto held = replay::Store::Open(temp / "cache");
  const auto busy = RunPlumb(Line(temp, "dpo", temp / "third", 2,
                                  {"--set", "preference.reference_cache=" + (temp / "cache")}));
  EXPECT_TRUE(busy.code != 0 && Has(busy.err, "open elsewhere") && !Has(busy.err, "rocksdb"))
      << busy.err;
}

TEST(PreferenceTrainTest, ARewardModelLearnsAndIsSavedForUse) {
  const TempFolder temp;
  std::vector<std::string> line = Line(temp, "reward_model", temp / "rm", 40);
  std::erase(line, "--quiet");
  const auto run = RunPlumb(line);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find(" eval " + (temp / "rm") + " PAIRS.jsonl --pairs\n"), std::string::npos)
      << run.out;
  const auto measured = RunPlumb({"eval", temp / "rm", temp / "pairs.jsonl", "--pairs"});
  EXPECT_EQ(measured.code, 0) << "what the run says to try: " << measured.err;
  EXPECT_GT(Summary(temp / "rm")["eval"]["after"]["accuracy"].get<double>(), 0.9);
  const auto config =
      nlohmann::json::parse(RealFileSystem().ReadFile(temp / "rm/model/config.json", 1 << 16));
  EXPECT_EQ(config["architectures"][0], "LlamaForSequenceClassification");
}

// Each loss of docs/preferences.md, from a recipe: it falls, and held-out pairs are told apart.
TEST(PreferenceTrainTest, EveryLossTrains) {
  const TempFolder temp;
  const std::vector<std::vector<std::string>> cases = {
      {"hinge"},
      {"ipo"},
      {"simpo", "preference.beta=2"},
      {"orpo", "preference.beta=1"},
      {"kto"},
      {"robust", "preference.label_smoothing=0.1"},
      {"sigmoid", "preference.label_smoothing=0.1"},  // cDPO
      {"sigmoid", "preference.length_normalize=true"},
      {"kto", "preference.desirable_weight=1.5", "preference.undesirable_weight=0.5"}};
  for (size_t i = 0; i < cases.size(); ++i) {
    std::vector<std::string> more;
    for (const std::string& set : cases[i])
      more.insert(more.end(), {"--set", &set == &cases[i][0] ? "preference.loss=" + set : set});
    const std::string out = temp / std::to_string(i);
    const auto run = RunPlumb(Line(temp, "dpo", out, 25, more));
    ASSERT_EQ(run.code, 0) << cases[i].front() << run.err;
    const auto eval = Summary(out)["eval"];
    EXPECT_LT(eval["after"]["loss"].get<double>(), eval["before"]["loss"].get<double>())
        << cases[i].front() << i;
    EXPECT_GT(eval["after"]["accuracy"].get<double>(), 0.8) << cases[i].front() << i;
  }
}

TEST(PreferenceTrainTest, AMarginOfTheDataIsAskedFor) {
  const TempFolder temp;
  auto line = Line(temp, "dpo", temp / "margin", 25);
  const std::string path = temp / "pairs.jsonl";  // Line has written it
  std::string text = RealFileSystem().ReadFile(path, 1 << 20), with;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    with += text.substr(at, end - at - 1) + ", \"margin\": 0.5}\n";
    at = end + 1;
  }
  RealFileSystem().WriteFileAtomic(path, with);
  const auto run = RunPlumb(line);
  ASSERT_EQ(run.code, 0) << run.err;
  const auto eval = Summary(temp / "margin")["eval"];
  EXPECT_NEAR(eval["before"]["loss"].get<double>(), std::log(1 + std::exp(0.5)), 1e-6);
  EXPECT_LT(eval["after"]["loss"].get<double>(), 0.8);
}

// Scores are no margin: the loss of plain DPO begins at ln 2 whatever they are.
TEST(PreferenceTrainTest, ScoreColumnsMakeNoMarginUnlessAsked) {
  const TempFolder temp;
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const std::string sum = std::to_string(i + 1);
    text += "{\"prompt\": \"" + std::to_string(i) + "+1=\", \"chosen\": \"" + sum +
            "\", \"rejected\": \"" + sum + "0\", \"score_chosen\": 8.5, \"score_rejected\": 4.0}\n";
  }
  const auto train = [&](const std::string& out, const std::vector<std::string>& more) {
    auto line = Line(temp, "dpo", temp / out, 1, {"--set", "preference.heldout=-1"});
    line.insert(line.end(), more.begin(), more.end());
    RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl", text);  // instead of Line's
    const auto run = RunPlumb(line);
    EXPECT_EQ(run.code, 0) << run.err;
    return Summary(temp / out)["eval"]["before"]["loss"].get<double>();
  };
  EXPECT_NEAR(train("plain", {}), std::log(2.0), 1e-9);
  EXPECT_NEAR(train("asked", {"--set", "data.map={ margin = \"score_chosen-score_rejected\" }"}),
              std::log(1 + std::exp(4.5)), 1e-6);
  const std::string log = RealFileSystem().ReadFile(temp / "plain/logs/train.log", 1 << 20);
  EXPECT_TRUE(Has(log, "36 to train on, 4 held out")) << "a tenth of a small file: " << log;
  EXPECT_TRUE(
      Has(log, "note: 40 rows: score_chosen and score_rejected left among the other columns"))
      << log;
  EXPECT_TRUE(Has(log, "--set 'data.map={margin=\"score_chosen-score_rejected\"}'")) << log;
  EXPECT_TRUE(
      Has(log, "row 1: prompt \"0+1=\"  chosen assistant: \"1\"  rejected assistant: \"10\""))
      << log;
}

TEST(PreferenceTrainTest, KtoResumesBitForBitAndItsSecondEpochNeedsNoReference) {
  const TempFolder temp;
  const std::vector<std::string> kto = {"--set", "preference.loss=kto", "--set",
                                        "preference.batch=20"};
  // 200 completions: an epoch is 10 steps
  ASSERT_EQ(RunPlumb(Line(temp, "dpo", temp / "whole", 20, kto)).code, 0);
  ASSERT_EQ(RunPlumb(Line(temp, "dpo", temp / "parts", 7, kto)).code, 0);
  auto more = kto;
  more.emplace_back("--resume");
  const auto resumed = RunPlumb(Line(temp, "dpo", temp / "parts", 20, more));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* hash : {"weights_sha256", "optimizer_sha256"}) {
    EXPECT_EQ(Summary(temp / "whole")[hash], Summary(temp / "parts")[hash]) << hash;
  }
  // Own and mismatched sequences of 200 rows and of 40 held out; each is looked up in both epochs.
  const auto counters = Summary(temp / "whole")["counters"];
  EXPECT_LE(counters["reference/cache_misses"].get<int64_t>(), 2 * (200 + 40));
  EXPECT_GE(counters["reference/cache_hits"].get<int64_t>(), 2 * 200);
}

TEST(PreferenceTrainTest, AResumeOverOtherRowsIsRefused) {
  const TempFolder temp;
  ASSERT_EQ(RunPlumb(Line(temp, "dpo", temp / "run", 6)).code, 0);
  std::filesystem::remove_all(temp / "run/store");
  auto line = Line(temp, "dpo", temp / "run", 12, {"--resume"});
  const std::string path = temp / "pairs.jsonl";
  std::string text = RealFileSystem().ReadFile(path, 1 << 20);
  text.replace(text.find("\"chosen\": \"") + 11, 1, "7");
  RealFileSystem().WriteFileAtomic(path, text);
  const auto resumed = RunPlumb(line);
  EXPECT_EQ(resumed.code, 2) << resumed.err;
  EXPECT_TRUE(Has(resumed.err, "trained on other rows")) << resumed.err;
}

// A pair of texts is the sequence that generate and score see: begun by the begin token, ended by
// one end token.
TEST(PreferenceTrainTest, TextsBeginAndEndAsEverywhereElse) {
  const TempFolder temp;
  const auto line = Line(temp, "dpo", temp / "run", 1, {});
  RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl",
                                   R"({"prompt": "1+2=", "chosen": "3<eos>", "rejected": "4"}
{"prompt": "<bos>5=", "chosen": "5", "rejected": "6"}
)");
  const auto config = configs::LoadRecipe(line[1], {"preference.heldout=0"}).config;
  const auto session = Session::WithoutRun(config);
  const auto store = replay::Store::Open(temp / "store");
  const auto data = LoadPreferences(*session, *store);
  const auto tokens = [&](const std::string& text) { return session->tokenizer().Encode(text); };
  ASSERT_EQ(data.train.size(), 2u);
  EXPECT_EQ(data.train[0].chosen.tokens, tokens("<bos>1+2=3<eos>"));
  EXPECT_EQ(data.train[0].rejected.tokens, tokens("<bos>1+2=4<eos>"));
  EXPECT_EQ(data.train[0].chosen.loss_mask, (std::vector<uint8_t>{0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(data.train[1].chosen.tokens, tokens("<bos>5=5<eos>"));
  EXPECT_EQ(session->encoder().Text("1+2=3"), tokens("<bos>1+2=3")) << "as score sees it";
}

// Calls, tools and message weights reach the template and the mask; what it cannot write is left
// out and said.
TEST(PreferenceTrainTest, MessagesAreTakenWithAllThatTheySay) {
  const TempFolder temp;
  Line(temp, "dpo", temp / "run", 1, {});
  const auto from_scratch = Session::WithoutRun(configs::LoadRecipe(temp / "dpo.toml").config);
  const std::string model = temp / "model";
  RealFileSystem().CreateDirectories(temp / "tokenizer");
  RealFileSystem().WriteFileAtomic(temp / "tokenizer/tokenizer.json",
                                   from_scratch->tokenizer().json());
  policy_model::SaveModelDirectory(
      policy_model::Weights(from_scratch->shape(), Device::kCpu, DType::kFloat32), model,
      temp / "tokenizer");
  RealFileSystem().WriteFileAtomic(
      model + "/chat_template.jinja",
      "{% for t in tools or [] %}{{ t.n }}{% endfor %}{% for m in messages %}"
      "{{ '-' if m.role == 'assistant' else '+' }}{{ m.content or '' }}"
      "{% for c in m.tool_calls or [] if c.n %}*{{ c.n }}{% endfor %}={% endfor %}"
      "{% if add_generation_prompt %}-{% endif %}");
  const std::string question = R"("prompt": [{"role": "user", "content": "1"}], )";
  const auto answer = [](const std::string& message) {
    return "[{\"role\": \"assistant\", " + message + "}]";
  };
  RealFileSystem().WriteFileAtomic(
      temp / "pairs.jsonl",
      "{" + question + R"("tools": [{"n": 8}], "chosen": )" +
          answer(R"("content": null, "tool_calls": [{"n": 5}])") + R"(, "rejected": )" +
          answer(R"("content": "6")") + "}\n" + "{" + question +
          R"("chosen": [{"role": "assistant", "content": "2", "weight": 0}, {"role": "user", "content": "3"},)" +
          R"( {"role": "assistant", "content": "4"}], "rejected": )" + answer(R"("content": "7")") +
          "}\n" + "{" + question + R"("chosen": )" +
          answer(R"("content": "", "tool_calls": [{"id": "x"}])") + R"(, "rejected": )" +
          answer(R"("content": "6")") + "}\n" + "{" + question + R"("chosen": )" +
          answer(R"("content": "5", "train": false)") + R"(, "rejected": )" +
          answer(R"("content": "6")") + "}\n");
  const auto config =
      configs::LoadRecipe(temp / "dpo.toml", {"preference.heldout=0", "model.path=" + model})
          .config;
  const auto session = Session::WithoutRun(config);
  const auto store = replay::Store::Open(temp / "store");
  const PreferenceData data = LoadPreferences(*session, *store);
  const auto shown = [&](const Demonstration& d) {
    std::string text = session->tokenizer().Decode(d.tokens) + " ";
    for (size_t i = 0; i < d.tokens.size(); ++i) {
      if (d.loss_mask[i] != 0) text += session->tokenizer().TokenBytes(d.tokens[i]);
    }
    return text;
  };
  ASSERT_EQ(data.train.size(), 2u);
  EXPECT_EQ(shown(data.train[0].chosen), "8+1=-*5= *5=");
  EXPECT_EQ(shown(data.train[0].rejected), "8+1=-6= 6=");
  EXPECT_EQ(shown(data.train[1].chosen), "+1=-2=+3=-4= +3=-4=")
      << "as the whole answer, but for the masked message";
  std::string notes;
  for (const std::string& note : data.notes) notes += note + "\n";
  EXPECT_TRUE(Has(notes, "1 that call tools left out")) << notes;
  EXPECT_TRUE(Has(notes, "1 left out in which no message")) << notes;
}

// What is too long follows data.overlong, and the summary of the rows says how many.
TEST(PreferenceTrainTest, OverlongPairsFollowThePolicy) {
  const TempFolder temp;
  const auto run = [&](const std::string& policy) {  // "a+b=" and an answer of 1 to 4 digits,
                                                     // ended: up to 10 tokens
    return RunPlumb(Line(temp, "dpo", temp / policy, 1,
                         {"--set", "preference.max_tokens=9", "--set", "data.overlong=" + policy,
                          "--set", "preference.heldout=2", "--set", "preference.batch=2"}));
  };
  const auto said = [&](const std::string& policy) {
    const auto got = run(policy);
    EXPECT_EQ(got.code, 0) << policy << got.err;
    return RealFileSystem().ReadFile(temp / (policy + "/logs/train.log"), 1 << 20);
  };
  const std::string dropped = said("drop"), left = said("left"), right = said("right");
  EXPECT_TRUE(Has(dropped, " longer than 9 tokens left out") && !Has(dropped, "cut to that"))
      << dropped;
  EXPECT_TRUE(Has(left, "118 to train on, 2 held out, 0 longer than 9 tokens left out") &&
              Has(left, "cut to that (data.overlong = left)"))
      << left;
  EXPECT_TRUE(Has(right, "cut to that (data.overlong = right)")) << right;
  const auto error = run("error");
  EXPECT_EQ(error.code, 2);
  EXPECT_TRUE(Has(error.err, "raise preference.max_tokens or set data.overlong")) << error.err;
}

// Rows that are no pairs are counted as what they are.
TEST(PreferenceTrainTest, AFileOfPromptsIsToldWhatAPairIs) {
  const TempFolder temp;
  const auto line = Line(temp, "dpo", temp / "run", 1);
  const auto said = [&](const std::string& rows) {
    RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl", rows);
    const auto refused = RunPlumb(line);
    EXPECT_EQ(refused.code, 2) << refused.out;
    return refused.err;
  };
  const std::string prompts = said(R"({"prompt": "1+1=", "answer": "2"})"
                                   "\n"
                                   R"({"prompt": "1+2=", "answer": "3"})");
  EXPECT_TRUE(Has(prompts, "0 usable pairs") && Has(prompts, "2 that are no pairs left out") &&
              Has(prompts, "(2 rows are prompts; a pair has prompt, chosen and rejected") &&
              Has(prompts, "data.map={chosen=\"COLUMN\"}"))
      << prompts;
  const std::string shown = said(R"({"prompt": "1+1=", "completion": "2"})");
  EXPECT_TRUE(Has(shown, "(1 row is a demonstration; a pair has")) << shown;
}

TEST(PreferenceTrainTest, ARowOfUnknownCharactersIsNamedByItsLine) {
  const TempFolder temp;
  const auto line = Line(temp, "dpo", temp / "run", 1);
  const std::string good = R"({"prompt": "1+1=", "chosen": "2", "rejected": "3"})";
  RealFileSystem().WriteFileAtomic(
      temp / "pairs.jsonl",
      good + "\n\n" + good + "\n" + R"({"prompt": "how", "chosen": "2", "rejected": "3"})");
  const auto refused = RunPlumb(line);
  EXPECT_EQ(refused.code, 2) << refused.out;
  EXPECT_TRUE(Has(refused.err, "pairs.jsonl:4: the character 'h' is not in the vocabulary") &&
              Has(refused.err, "knows these rows in model.path"))
      << refused.err;
}

// Rows of another kind than the loss wants: who could use them is said, not only that none is
// usable.
TEST(PreferenceTrainTest, JudgedCompletionsWithoutKtoPointToIt) {
  const TempFolder temp;
  const auto line = Line(temp, "dpo", temp / "run", 1);
  std::string rows;
  for (int i = 0; i < 30; ++i) {
    rows += "{\"prompt\": \"" + std::to_string(i) + "+1=\", \"completion\": \"" +
            std::to_string(i + 1) + "\", \"label\": " + (i % 2 == 0 ? "true" : "false") + "}\n";
  }
  RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl", rows);
  const auto refused = RunPlumb(line);
  EXPECT_EQ(refused.code, 2) << refused.err;
  EXPECT_TRUE(Has(refused.err, "0 usable pairs")) << refused.err;
  EXPECT_TRUE(Has(refused.err, "30 are judged completions") &&
              Has(refused.err, "preference.loss = \"kto\""))
      << refused.err;
  auto kto = line;
  kto.insert(kto.end(), {"--set", "preference.loss=kto"});
  EXPECT_EQ(RunPlumb(kto).code, 0);
}

TEST(OverlongTest, CutsWhereItMayAndCountsTheRest) {
  const auto sequence = [](std::vector<int32_t> prompt, const std::vector<int32_t>& answer) {
    Demonstration d;
    d.tokens = std::move(prompt);
    d.loss_mask.assign(d.tokens.size(), 0);
    d.tokens.insert(d.tokens.end(), answer.begin(), answer.end());
    d.loss_mask.resize(d.tokens.size(), 1);
    return d;
  };
  const auto fit = [](Overlong& overlong, Demonstration& a, Demonstration& b) {
    Demonstration* both[] = {&a, &b};
    return overlong.Fit(both, "row 1");
  };
  using Policy = configs::OverlongPolicy;
  Overlong left(Policy::kLeft, 5, "x"), right(Policy::kRight, 5, "x"), drop(Policy::kDrop, 5, "x");
  Demonstration a = sequence({1, 2, 3, 4}, {7}), b = sequence({1, 2, 3, 4}, {8, 9});
  EXPECT_TRUE(fit(left, a, b));
  EXPECT_EQ(a, sequence({2, 3, 4}, {7}));  // the same prompt in both
  EXPECT_EQ(b, sequence({2, 3, 4}, {8, 9}));
  a = sequence({1}, {7}), b = sequence({1}, {8, 9, 10, 11, 12});
  EXPECT_FALSE(fit(left, a, b)) << "nothing of the prompt would be left";
  EXPECT_TRUE(fit(right, a, b));
  EXPECT_EQ(a, sequence({1}, {7}));
  EXPECT_EQ(b, sequence({1}, {8, 9, 10, 11}));
  a = sequence({1, 2, 3, 4}, {7, 8}), b = sequence({1, 2, 3, 4}, {7, 9});
  EXPECT_FALSE(fit(right, a, b)) << "they differ behind the cut only";
  a = sequence({1, 2, 3, 4, 5}, {7}), b = sequence({1, 2, 3, 4, 5}, {8});
  EXPECT_FALSE(fit(right, a, b)) << "nothing of the answers would be left";
  EXPECT_FALSE(fit(drop, a, b));
  EXPECT_EQ(a, sequence({1, 2, 3, 4, 5}, {7})) << "what is left out is left as it was";
  EXPECT_EQ(right.Describe(),
            "2 longer than 5 tokens left out, 1 cut to that (data.overlong = right)");
  EXPECT_EQ(left.dropped(), 1);
  EXPECT_EQ(left.cut(), 1);
}

// Three skipped in a row end a run; fewer, where it has no more, are no training either.
TEST(PreferenceTrainTest, ARunWhoseUpdatesWereAllSkippedTrainedNothing) {
  const TempFolder temp;
  const auto run = RunPlumb(Line(temp, "dpo", temp / "run", 2,
                                 {"--set", "preference.beta=1e300"}));  // infinite gradients
  EXPECT_EQ(run.code, 8) << run.out << run.err;
  EXPECT_TRUE(Has(run.err, "the run's 2 steps trained nothing")) << run.err;
  EXPECT_TRUE(Has(run.err, "optim/skipped = 2")) << run.err;
  EXPECT_TRUE(Has(run.err, "as it was before the run")) << run.err;
  EXPECT_EQ(Summary(temp / "run")["skipped_updates"], 2);
  const auto fine = RunPlumb(Line(temp, "dpo", temp / "fine", 2));
  EXPECT_EQ(fine.code, 0) << fine.err;
}

// --quiet hides what goes well.
TEST(PreferenceTrainTest, AResumeThatIsNotBitForBitIsSaidQuietlyToo) {
  const TempFolder temp;
  const std::vector<std::string> at_end = {"--set", "checkpoint.optimizer=\"until_end\""};
  ASSERT_EQ(RunPlumb(Line(temp, "dpo", temp / "run", 2, at_end)).code, 0);
  auto more = at_end;
  more.push_back("--resume");
  const auto resumed = RunPlumb(Line(temp, "dpo", temp / "run", 3, more));
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(Has(resumed.err, "not bit for bit one that had never ended")) << resumed.err;
}

TEST(PreferenceTrainTest, WrongInputIsSaidAtTheStart) {
  const TempFolder temp;
  const auto large =
      RunPlumb(Line(temp, "dpo", temp / "a", 3, {"--set", "preference.heldout=120"}));
  EXPECT_EQ(large.code, 2);
  EXPECT_TRUE(Has(large.err, "nothing is left to train on")) << large.err;
  const auto batch = RunPlumb(Line(temp, "dpo", temp / "b", 3, {"--set", "preference.batch=500"}));
  EXPECT_EQ(batch.code, 2);
  EXPECT_TRUE(Has(batch.err, "preference.batch = 500 is more than the rows to train on"))
      << batch.err;
  EXPECT_TRUE(
      Has(RunPlumb(Line(temp, "dpo", temp / "c", 3, {"--set", "preference.loss=sigmoyd"})).err,
          "preference.loss"));
  EXPECT_TRUE(
      Has(RunPlumb(Line(temp, "dpo", temp / "d", 3, {"--roles", "processes"})).err, "use local"));
  EXPECT_TRUE(Has(RunPlumb(Line(temp, "dpo", temp / "f", 3, {"--set", "algorithm.beta=0.1"})).err,
                  "preference.beta"));
  EXPECT_TRUE(
      Has(RunPlumb(Line(temp, "dpo", temp / "g", 3, {"--set", "sft.steps=5"})).err, "sft.steps"));
  EXPECT_EQ(RunPlumb(Line(temp, "dpo", temp / "e", 3, {"--set", "data.train=/nothing.jsonl"})).code,
            3);
  RealFileSystem().CreateDirectories(temp / "saved");
  RealFileSystem().WriteFileAtomic(temp / "saved/dataset_info.json", "{}");
  const auto saved =
      RunPlumb(Line(temp, "dpo", temp / "h", 3, {"--set", "data.train=" + (temp / "saved")}));
  EXPECT_TRUE(Has(saved.err, "is a folder of datasets' save_to_disk")) << saved.err;
}

}  // namespace
}  // namespace plumb::run
