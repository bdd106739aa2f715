// Out of a store as a file for TRL or verl and into another store: the very same records, tokens
// and ids included.
#include <sstream>

#include <nlohmann/json.hpp>

#include "replay/datasets/exporter.h"
#include "replay/datasets/importer.h"
#include "replay/datasets/pair_miner.h"
#include "replay/datasets/rows/parquet_source.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::json;

constexpr ExportForm kForms[] = {ExportForm::kTrl, ExportForm::kVerl};
const char* const kFiles[] = {"out.jsonl", "out.jsonl.gz", "out.parquet"};

std::string Write(const Store& store, const TempFolder& folder, const std::string& dataset,
                  ExportForm form, const std::string& name, ExportRows rows = ExportRows::kAuto) {
  const std::string out = folder / name;
  const ExportReport report =
      ExportDataset(store, {.dataset = dataset, .rows = rows, .form = form, .out = out});
  EXPECT_EQ(report.same, report.lines) << FormName(form) << " " << name << ": "
                                       << (report.examples.empty() ? "" : report.examples[0]);
  EXPECT_FALSE(std::filesystem::exists(out + ".jsonl"));
  return out;
}

// Every form and container gives `rows` back.
void ExpectSamePreferences(const std::string& rows) {
  TempFolder folder;
  auto store = OpenStore(folder / "a");
  ImportFiles(*store, ImportOf(WriteFile(folder / "in", rows), "d"));
  const auto before = store->ReadPreferences("d", 0, UINT64_MAX);
  ASSERT_FALSE(before.empty());
  for (const ExportForm form : kForms) {
    for (const std::string name : kFiles) {
      if (name.ends_with("parquet") && !HasParquet()) continue;
      const std::string file = Write(*store, folder, "d", form, name);
      auto again = OpenStore(folder / (FormName(form) + name));
      ImportFiles(*again, ImportOf(file, "d"));
      EXPECT_EQ(again->ReadPreferences("d", 0, UINT64_MAX), before) << FormName(form) << name;
    }
  }
}

TEST(RoundTripTest, PairsOfTexts) {
  ExpectSamePreferences(
      R"({"prompt": "p one", "chosen": "good", "rejected": "bad", "margin": 0.5, "id": 7, "at": "2024-01-01"})"
      "\n"
      R"({"prompt": "p two", "chosen": " good\n", "rejected": "\"bad\"", "margin": 1.5, "id": 8, "at": "2024-01-02"})");
}

TEST(RoundTripTest, PairsOfMessages) {
  ExpectSamePreferences(
      R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}]})"
      "\n"
      R"({"system": "s", "instruction": "i", "input": "n", "chosen": "y", "rejected": "n"})");
}

TEST(RoundTripTest, Demonstrations) {
  ExpectSamePreferences(R"({"prompt": "p", "completion": "c"})"
                        "\n"
                        R"({"prompt": "q", "completion": "d"})");
  ExpectSamePreferences(
      R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}]})");
}

TEST(RoundTripTest, Prompts) {
  const std::string files[] = {
      R"({"prompt": "text one", "answer": "1", "index": 9, "level": 2, "at": "2024-01-01T00:00:00"})"
      "\n"
      R"({"prompt": "text two", "answer": "2", "index": 8, "level": 3, "at": "yesterday"})",
      R"({"prompt": [{"role": "user", "content": "q"}], "answer": 5, "ability": "sums"})",
      R"({"question": "6*7?", "answer": "6*7=42\n#### 42"})",
      R"({"data_source": "math", "prompt": [{"role": "user", "content": "q"}], "ability": "a", "reward_model": {"style": "rule", "ground_truth": "5"}, "extra_info": {"index": 3}})"};
  for (const std::string& rows : files) {
    TempFolder folder;
    auto store = OpenStore(folder / "a");
    ImportRequest in = ImportOf(WriteFile(folder / "in", rows), "d");
    ImportFiles(*store, in);
    for (const ExportForm form : kForms) {
      for (const std::string name : kFiles) {
        if (name.ends_with("parquet") && !HasParquet()) continue;
        const std::string file = Write(*store, folder, "d", form, name);
        auto again = OpenStore(folder / (FormName(form) + name));
        ImportFiles(*again, ImportOf(file, "d"));
        ASSERT_EQ(again->PromptCount("d"), store->PromptCount("d"));
        for (uint64_t i = 0; i < store->PromptCount("d"); ++i)
          EXPECT_EQ(again->ReadPrompt("d", i), store->ReadPrompt("d", i))
              << FormName(form) << name << "\n"
              << rows;
      }
    }
  }
}

// Three groups: text prompts and messages, answers that ended and one that was cut.
std::unique_ptr<Store> Rollouts(const TempFolder& folder) {
  auto store = OpenStore(folder / "rollouts");
  for (uint64_t id = 3; id < 6; ++id) {
    PromptLease lease = PlainLease(id);
    lease.prompt = {.dataset = "train", .row = id, .ground_truth = "4"};
    lease.prompt.extra_json = R"({"level":"easy"})";
    if (id == 3) lease.prompt.text = "2+2?";
    else lease.prompt.messages = {{"system", "s"}, {"user", "2+2?"}};
    TrajectoryGroup group = Answer(lease, 7);
    for (Trajectory& t : group.trajectories) {
      t.completion += "<|im_end|>";
      t.tokens.back() += static_cast<int32_t>(t.sample);
    }
    group.trajectories[0].finish = FinishReason::kLength;
    group.trajectories[0].completion = "cut off";
    if (id == 4) group.trajectories[1].completion = "<|im_end|>";  // it says nothing
    store->Insert(group);
  }
  return store;
}

TEST(RoundTripTest, MinedPairs) {
  TempFolder folder;
  const auto rollouts = Rollouts(folder);
  auto store = OpenStore(folder / "pairs");
  MineOptions options;
  options.keep_margin = true;
  ASSERT_EQ(MinePairs(*rollouts, *store, options).pairs, 3);
  const auto before = store->ReadPreferences("mined", 0, UINT64_MAX);
  for (const PreferenceRecord& record : before) {
    ASSERT_FALSE(record.chosen_tokens.empty() || record.rejected_tokens.empty());
    EXPECT_EQ(record.chosen[0].content.find("<|im_end|>"), std::string::npos);
  }
  for (const ExportForm form : kForms) {
    for (const std::string name : kFiles) {
      // One column of a table is a text or a list of messages.
      if (name.ends_with("parquet")) continue;
      const std::string file = Write(*store, folder, "mined", form, name);
      auto again = OpenStore(folder / (FormName(form) + name));
      ImportFiles(*again, ImportOf(file, "mined"));
      EXPECT_EQ(again->ReadPreferences("mined", 0, UINT64_MAX), before) << FormName(form) << name;
      // And where they came from they are nothing new.
      EXPECT_TRUE(ImportFiles(*store, ImportOf(file, "mined")).unchanged);
    }
  }
  const std::string text = ReadFile(folder / "out.jsonl");
  EXPECT_EQ(text.find("<|im_end|>"), std::string::npos) << text;
  const Json row = Json::parse(text.substr(0, text.find('\n')));
  EXPECT_EQ(row.at("prompt"), "2+2?");
  EXPECT_TRUE(row.at("chosen").is_string());
  EXPECT_EQ(row.at("plumb_tokens").at("chosen"), Json(before[0].chosen_tokens));
  EXPECT_THROWS(ErrorCode::kUnsupported, HasParquet() ? "these rows do not fit" : "without Arrow",
                ExportDataset(*store, {.dataset = "mined", .out = folder / "mixed.parquet"}));
  EXPECT_FALSE(std::filesystem::exists(folder / "mixed.parquet"));

  // Texts alone, for whoever has another tokenizer.
  const ExportReport plain =
      ExportDataset(*store, {.dataset = "mined", .out = folder / "plain", .tokens = false});
  EXPECT_EQ(plain.same, 2) << "in all that the file holds";
  ASSERT_EQ(plain.examples.size(), 1u);
  EXPECT_NE(plain.examples[0].find("'rejected' is empty"), std::string::npos) << plain.examples[0];
  EXPECT_EQ(plain.notes.at("token_lists_left_out"), 3);
  EXPECT_EQ(ReadFile(folder / "plain").find("plumb_tokens"), std::string::npos);
}

TEST(RoundTripTest, Rollouts) {
  TempFolder folder;
  const auto store = Rollouts(folder);
  const std::string file =
      Write(*store, folder, "", ExportForm::kTrl, "out.jsonl", ExportRows::kRollouts);
  auto again = OpenStore(folder / "again");
  EXPECT_EQ(ImportFiles(*again, ImportOf(file, "d")).kind, RowKind::kDemonstrations);
  const auto records = again->ReadPreferences("d", 0, UINT64_MAX);
  size_t at = 0;
  for (const uint64_t id : store->Ids(Purpose::kTrain, 0, UINT64_MAX)) {
    const auto group = store->Read(Purpose::kTrain, id)->group;
    for (const Trajectory& t : group.trajectories) {
      ASSERT_LT(at, records.size());
      const PreferenceRecord& record = records[at++];
      EXPECT_EQ(record.prompt_text, group.lease.prompt.text);
      EXPECT_EQ(record.prompt, group.lease.prompt.messages);
      const std::string whole =
          record.chosen.front().content + (t.finish == FinishReason::kStop ? "<|im_end|>" : "");
      EXPECT_EQ(whole, t.completion);
      std::vector<int32_t> tokens = record.prompt_tokens;
      tokens.insert(tokens.end(), record.chosen_tokens.begin(), record.chosen_tokens.end());
      EXPECT_EQ(tokens, t.tokens);
      const Json columns = Json::parse(record.extra_json);
      EXPECT_EQ(columns.at("lease"), id);
      EXPECT_EQ(columns.at("sample"), t.sample);
      EXPECT_EQ(columns.at("level"), "easy");
      EXPECT_EQ(columns.at("reward"), t.reward);
      EXPECT_EQ(columns.at("truncated"), t.finish == FinishReason::kLength);
    }
  }
  EXPECT_EQ(at, records.size());

  // verl's rows are the prompts, with their answers and scores.
  std::vector<std::string> names = {"verl.jsonl"};
  if (HasParquet()) names.push_back("verl.parquet");
  for (const std::string& name : names) {
    const std::string verl =
        Write(*store, folder, "", ExportForm::kVerl, name, ExportRows::kRollouts);
    auto prompts = OpenStore(folder / ("of " + name));
    EXPECT_EQ(ImportFiles(*prompts, ImportOf(verl, "d")).kind, RowKind::kPrompts);
    const Prompt first = prompts->ReadPrompt("d", 0), second = prompts->ReadPrompt("d", 1);
    EXPECT_EQ(first.text, "2+2?");
    EXPECT_EQ(second.messages, (std::vector<Message>{{"system", "s"}, {"user", "2+2?"}}));
    EXPECT_EQ(second.ground_truth, "4");
    const Json columns = Json::parse(second.extra_json);
    EXPECT_EQ(columns.at("level"), "easy");
    EXPECT_EQ(columns.at("responses").at(0), "cut off");
    EXPECT_EQ(columns.at("scores").size(), 2u);
  }
}

TEST(RoundTripTest, AColumnThatChangesWhatARowIsIsNamed) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  PromptLease lease = PlainLease(3);
  lease.prompt = {.dataset = "train", .text = "q", .extra_json = R"({"label":true})"};
  store->Insert(Answer(lease, 7));
  const ExportReport report =
      ExportDataset(*store, {.dataset = "", .rows = ExportRows::kRollouts, .out = folder / "out"});
  EXPECT_EQ(report.same, 0);
  ASSERT_EQ(report.examples.size(), 2u);
  EXPECT_EQ(report.examples[0], "lease 3, answer 0: is read as labelled completions");
}

// What was sampled may say nothing, and may differ in its end alone.
TEST(RoundTripTest, SampledAnswersMayBeEmptyOrOfEqualTexts) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  const auto row = [](const char* chosen, const char* rejected, const char* tokens) {
    return std::string(R"({"prompt": "p", "chosen": ")") + chosen + R"(", "rejected": ")" +
           rejected + R"(", "plumb_tokens": {"prompt": [1], )" + tokens + "}}\n";
  };
  const ImportReport report = ImportFiles(
      *store,
      ImportOf(WriteFile(folder / "in", row("", "b", R"("chosen": [2], "rejected": [3])") +
                                            row("a", "a", R"("chosen": [4, 2], "rejected": [4])") +
                                            row("a", "b", R"("chosen": [4], "rejected": [4])")),
               "d"));
  EXPECT_EQ(report.files[0].Describe(), "read 3 = used 2 + 1 equal_pair");
}

// Lists that are no tokens are a row that cannot be used.
TEST(RoundTripTest, TokensOfAFileAreChecked) {
  const auto refused = [](const std::string& tokens) {
    TempFolder folder;
    auto store = OpenStore(folder / "s");
    const std::string good = R"({"prompt": "p", "chosen": "a", "rejected": "c"})";
    const ImportReport report = ImportFiles(
        *store,
        ImportOf(WriteFile(folder / "in", good + "\n" +
                                              R"({"prompt": "p", "chosen": "a", "rejected": "b", )"
                                              R"("plumb_tokens": )" +
                                              tokens + "}"),
                 "d"));
    return report.files[0].examples.empty() ? "" : report.files[0].examples[0];
  };
  EXPECT_EQ(refused(R"({"prompt": [1], "chosen": [2], "rejected": [3]})"), "");
  for (const char* wrong : {"7", R"({"prompt": [1], "chosen": [2]})",
                            R"({"prompt": [1], "chosen": [2], "rejected": []})",
                            R"({"prompt": [-1], "chosen": [2], "rejected": [3]})",
                            R"({"prompt": [1.5], "chosen": [2], "rejected": [3]})",
                            R"({"prompt": [4294967296], "chosen": [2], "rejected": [3]})"})
    EXPECT_NE(refused(wrong).find("wrong_type"), std::string::npos) << wrong;
}

}  // namespace
}  // namespace plumb::replay
