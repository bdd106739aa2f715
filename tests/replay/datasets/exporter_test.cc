#include "replay/datasets/exporter.h"

#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "replay/datasets/export_row.h"
#include "replay/datasets/importer.h"
#include "replay/datasets/line_writer.h"
#include "replay/datasets/rows/end_token.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/faulty_file_system.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::json;

struct Trip {
  ExportReport report;
  std::string text;  // of the file
  std::vector<Prompt> prompts, prompts_again;
  std::vector<PreferenceRecord> records, records_again;
};

void ReadInto(Store& store, std::vector<Prompt>& prompts, std::vector<PreferenceRecord>& records) {
  for (uint64_t i = 0; i < store.PromptCount("d"); ++i) prompts.push_back(store.ReadPrompt("d", i));
  records = store.ReadPreferences("d", 0, UINT64_MAX);
}

// File -> store -> file -> another store.
Trip RoundTrip(const std::string& text, ExportForm form, const std::string& name = "out.jsonl") {
  TempFolder folder;
  Trip trip;
  ImportRequest in = ImportOf(WriteFile(folder / "in", text), "d");
  {
    auto store = OpenStore(folder / "a");
    ImportFiles(*store, in);
    ReadInto(*store, trip.prompts, trip.records);
    trip.report = ExportDataset(*store, {.dataset = "d", .form = form, .out = folder / name});
  }
  EXPECT_FALSE(std::filesystem::exists(folder / (name + ".part")));
  EXPECT_EQ(trip.report.bytes, std::filesystem::file_size(folder / name));
  trip.text = ReadFile(folder / name);
  auto store = OpenStore(folder / "b");
  in.files = {folder / name};
  ImportFiles(*store, in);
  ReadInto(*store, trip.prompts_again, trip.records_again);
  return trip;
}

const char* const kForms[] = {
    // prompts
    R"({"question": "6*7?", "answer": "6*7=42\n#### 42", "id": 1})"
    "\n"
    R"({"question": "1+1?", "answer": "so\n#### 2", "id": 2})",
    R"({"data_source": "math", "prompt": [{"role": "user", "content": "q"}], "ability": "a", "reward_model": {"style": "rule", "ground_truth": "5"}, "extra_info": {"z": 1.5, "a": [1, {"k": null}]}})",
    R"({"prompt": [{"role": "user", "content": "q"}], "reward_spec": {"method": "rule", "ground_truth": 7}, "env_class": "gym"})",
    R"({"input": "q", "label": "5"})",
    R"({"prompt": "q \"quoted\" \u00e9\u2603 \t tab", "label": "5", "metadata": {"k": -0.1}})",
    R"({"prompt": "q", "answer": "x"})",
    R"({"prompt": "q", "topic": "t"})",
    R"({"prompt": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"role": "user", "content": "q", "name": "ann"}, {"role": "ipython", "content": "5", "weight": 0}], "tools": [{"z": 1, "a": 2}], "chat_template_kwargs": {"y": false, "b": 1}})",
    // pairs
    R"({"prompt": "p", "chosen": "good", "rejected": "bad", "id": 7})",
    R"({"prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}], "margin": 0.1})",
    R"({"chosen": "\n\nHuman: hi\n\nAssistant: a b", "rejected": "\n\nHuman: hi\n\nAssistant: c"})",
    R"({"chosen": "one two three", "rejected": "one two four"})",
    R"({"chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "c"}]})",
    R"({"prompt": "p", "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "n"}], "score_chosen": 8.5, "score_rejected": 2})",
    R"({"context": [{"role": "user", "content": "q"}], "completions": [{"rank": 0, "completion": [{"role": "assistant", "content": "y"}]}, {"rank": 1, "completion": [{"role": "assistant", "content": "n"}]}]})",
    R"({"instruction": "i", "input": "n", "chosen": "good", "rejected": "bad", "system": "s", "history": [["h", "r"]]})",
    R"({"prompt": "p", "response_a": "x", "response_b": "y", "winner": "b"})",
    R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "y"}, "rejected": {"from": "gpt", "value": "n"}})",
    R"({"prompt": [{"role": "user", "content": "w?"}], "chosen": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "get", "arguments": {"b": 1, "a": 2.5}}}]}], "rejected": [{"role": "assistant", "content": "n", "reasoning_content": "r"}], "tools": [{"type": "function", "function": {"name": "get", "description": "d"}}]})",
    // labelled and demonstrations
    R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "y"}], "kto_tag": true})",
    R"({"prompt": "p", "completion": "c", "label": false, "n": 12345678901234567})",
    R"({"prompt": "p", "completion": "c", "why": "w"})",
    R"({"text": "just a text"})",
    R"({"instruction": "i", "input": "n", "output": "o"})",
    R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}]})",
};

TEST(ExporterTest, EveryFormComesBackAsTheSameRecords) {
  for (const char* rows : kForms) {
    for (const ExportForm form : {ExportForm::kTrl, ExportForm::kVerl}) {
      const Trip trip =
          RoundTrip(rows, form, form == ExportForm::kTrl ? "out.jsonl" : "out.jsonl.gz");
      const auto n = static_cast<int64_t>(trip.prompts.size() + trip.records.size());
      EXPECT_GT(n, 0);
      EXPECT_EQ(trip.report.read, n) << rows;
      EXPECT_EQ(trip.report.written, n) << rows;
      EXPECT_EQ(trip.records_again, trip.records) << rows << "\n" << trip.text;
      EXPECT_EQ(trip.prompts_again, trip.prompts) << rows << "\n" << trip.text;
      EXPECT_EQ(trip.report.same, n) << rows << "\n" << trip.text;
    }
  }
}

TEST(ExporterTest, WritesTheColumnsThatTheOthersRead) {
  const std::string gz = RoundTrip(kForms[0], ExportForm::kVerl, "out.jsonl.gz").text;
  EXPECT_EQ(gz.substr(0, 2), "\x1f\x8b");
  const Json verl = Json::parse(
      RoundTrip(R"({"prompt": "q", "answer": "5", "topic": "t"})", ExportForm::kVerl).text);
  EXPECT_EQ(verl.at("data_source"), "d");
  EXPECT_EQ(verl.at("prompt"), Json::parse(R"([{"role": "user", "content": "q"}])"));
  EXPECT_EQ(verl.at("reward_model"), Json::parse(R"({"style": "rule", "ground_truth": "5"})"));
  EXPECT_EQ(verl.at("ability"), "");
  EXPECT_EQ(verl.at("extra_info"),
            Json::parse(R"({"index": 0, "topic": "t", "plumb": {"prompt": "text"}})"));
  const Json own = Json::parse(kForms[1]);
  EXPECT_EQ(Json::parse(RoundTrip(kForms[1], ExportForm::kVerl).text), own)
      << "a row of verl comes back as it was";
  const Json trl = Json::parse(RoundTrip(kForms[8], ExportForm::kTrl).text);
  EXPECT_EQ(trl, Json::parse(kForms[8]));
}

// A number stays in its column and a text is the ground truth: they are written as one column.
TEST(ExporterTest, TheGroundTruthOfOneDatasetIsOneColumn) {
  const Trip trip = RoundTrip(R"({"prompt": "1+1", "answer": "2"})"
                              "\n"
                              R"({"prompt": "2+2", "answer": 4})"
                              "\n"
                              R"({"prompt": "3+3", "answer": "6"})",
                              ExportForm::kTrl);
  EXPECT_EQ(trip.prompts_again, trip.prompts) << trip.text;
  EXPECT_EQ(trip.report.same, 3);
  EXPECT_EQ(trip.text.find("ground_truth"), std::string::npos) << trip.text;
  EXPECT_NE(trip.text.find(R"("answer":"2")"), std::string::npos) << trip.text;
}

TEST(ExporterTest, WhatDoesNotComeBackIsCountedAndNamed) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  std::vector<PreferenceRecord> records(4);
  for (auto& r : records)
    r.prompt_text = "p", r.chosen = {{"assistant", "c"}}, r.rejected = {{"assistant", "r"}};
  records[1].extra_json = R"({"prompt":"another"})";
  records[2].weight = 0.5;
  records[3] = {.prompt_tokens = {1}, .chosen_tokens = {2}, .rejected_tokens = {3}};
  PutPreferences(*store, "d", records);
  const ExportReport report = ExportDataset(*store, {.dataset = "d", .out = folder / "out"});
  EXPECT_EQ(report.Describe(), "read 4 = written 3 + 1 only_tokens");
  EXPECT_EQ(report.same, 2) << "a weight comes back by --map weight=weight";
  EXPECT_EQ(report.notes.at("columns_in_the_way"), 1);
  EXPECT_EQ(report.notes.at("weights"), 1);
  ASSERT_EQ(report.examples.size(), 1u);
  EXPECT_NE(report.examples[0].find("row 1: the column 'prompt' is read as a part of the row"),
            std::string::npos)
      << report.examples[0];
  EXPECT_THROW(ExportDataset(*store, {.dataset = "none", .out = folder / "out2"}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "out2"));
}

// Also where an older Plumb gave it one.
TEST(ExporterTest, AnAnswerThatWasNeverGeneratedHasNoScore) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  TrajectoryGroup group = Answer(PlainLease(3), 7);
  group.trajectories[0].finish = FinishReason::kAborted;
  store->Insert(group);
  ExportRequest request{.dataset = "", .rows = ExportRows::kRollouts, .out = folder / "trl"};
  const ExportReport report = ExportDataset(*store, request);
  EXPECT_EQ(report.notes.at("answers_without_a_score"), 1);
  EXPECT_EQ(report.notes.at("answers_never_generated"), 1);
  const std::string text = ReadFile(folder / "trl");
  const Json first = Json::parse(text.substr(0, text.find('\n')));
  EXPECT_TRUE(first.at("reward").is_null() && !first.contains("rewards")) << first;
  request.form = ExportForm::kVerl;
  request.out = folder / "verl";
  ExportDataset(*store, request);
  EXPECT_EQ(Json::parse(ReadFile(folder / "verl")).at("scores"), Json::parse("[null, 0.0]"));
}

TEST(ExporterTest, RolloutsInBothForms) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  PromptLease lease = PlainLease(3);
  lease.prompt = {.dataset = "train", .row = 5, .text = "2+2?", .ground_truth = "4"};
  TrajectoryGroup group = Answer(lease, 7);
  group.trajectories[1].completion = "\xFF!";
  store->Insert(group);
  lease.lease_id = 4;
  TrajectoryGroup dropped = Answer(lease, 7);
  InsertDropped(*store, dropped, "because");
  ExportRequest request{.dataset = "", .rows = ExportRows::kRollouts, .out = folder / "trl"};
  ExportReport report = ExportDataset(*store, request);
  EXPECT_EQ(report.Describe(), "read 2 = written 1 + 1 dropped_groups");
  EXPECT_EQ(report.lines, 2);
  EXPECT_EQ(report.notes.at("texts_with_replaced_bytes"), 1);
  const std::string text = ReadFile(folder / "trl");
  const Json first = Json::parse(text.substr(0, text.find('\n')));
  EXPECT_EQ(first.at("prompt"), "2+2?");
  EXPECT_EQ(first.at("completion"), "answer 3/0");
  EXPECT_EQ(first.at("reward"), 1.0);
  EXPECT_EQ(first.at("policy_version"), 7);
  EXPECT_EQ(report.same, 1) << "the second answer has a byte that is no text";
  ASSERT_EQ(report.examples.size(), 1u);
  EXPECT_EQ(report.examples[0], "lease 3, answer 1: the column 'completion' differs");
  auto again = OpenStore(folder / "again");
  EXPECT_EQ(ImportFiles(*again, ImportOf(folder / "trl", "d")).kind, RowKind::kDemonstrations);
  request.form = ExportForm::kVerl;
  request.out = folder / "verl";
  ExportDataset(*store, request);
  const Json verl = Json::parse(ReadFile(folder / "verl"));
  EXPECT_EQ(verl.at("responses").size(), 2u);
  EXPECT_EQ(verl.at("scores"), Json::parse("[1.0, 0.0]"));
  EXPECT_EQ(verl.at("reward_model").at("ground_truth"), "4");
}

// In TRL's conversational form, answers without what the template writes behind them.
TEST(ExporterTest, SampledAnswersComeWithoutTheirEndToken) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  PromptLease lease = PlainLease(3);
  lease.prompt = {.dataset = "train", .messages = {{"user", "2+2?"}}, .ground_truth = "4"};
  TrajectoryGroup group = Answer(lease, 7);
  group.trajectories[0].completion = "four<|im_end|>";
  group.trajectories[1].completion = "cut<|im_end|>";
  group.trajectories[1].finish = FinishReason::kLength;
  store->Insert(group);
  ExportRequest request{.dataset = "", .rows = ExportRows::kRollouts, .out = folder / "trl"};
  const ExportReport report = ExportDataset(*store, request);
  EXPECT_EQ(report.notes.at("end_tokens_left_out"), 1);
  std::istringstream lines(ReadFile(folder / "trl"));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(Json::parse(line).at("completion"),
            Json::parse(R"([{"role": "assistant", "content": "four"}])"));
  std::getline(lines, line);
  EXPECT_EQ(Json::parse(line).at("completion"),
            Json::parse(R"([{"role": "assistant", "content": "cut<|im_end|>"}])"))
      << "it was cut, and says so";
  request.form = ExportForm::kVerl;
  request.out = folder / "verl";
  ExportDataset(*store, request);
  EXPECT_EQ(Json::parse(ReadFile(folder / "verl")).at("responses"),
            Json::parse(R"(["four", "cut<|im_end|>"])"));
  auto again = OpenStore(folder / "again");
  ImportFiles(*again, ImportOf(folder / "trl", "d"));
  EXPECT_EQ(again->ReadPreferences("d", 0, 1).front().chosen,
            (std::vector<Message>{{"assistant", "four"}}));

  // Pairs of rollouts that hold the token in their texts; those of a file are left as they are.
  std::vector<PreferenceRecord> records(2);
  for (auto& r : records)
    r.prompt = {{"user", "q"}}, r.chosen = {{"assistant", "y<|im_end|>"}},
    r.rejected = {{"assistant", "n<stop>"}};
  records[0].prompt_tokens = {1}, records[0].chosen_tokens = {2}, records[0].rejected_tokens = {3};
  records[0].extra_json = R"({"run_id":"r","lease_id":4})";
  PutPreferences(*store, "pairs", records);
  ExportRequest pairs{.dataset = "pairs", .out = folder / "pairs"};
  pairs.end_tokens = {"<stop>"};
  const ExportReport mined = ExportDataset(*store, pairs);
  EXPECT_EQ(mined.same, 2) << "the order of keys in other columns says nothing: "
                           << (mined.examples.empty() ? "" : mined.examples[0]);
  EXPECT_EQ(mined.notes.at("end_tokens_left_out"), 2);
  const std::string text = ReadFile(folder / "pairs");
  EXPECT_EQ(Json::parse(text.substr(0, text.find('\n'))).at("chosen"),
            Json::parse(R"([{"role": "assistant", "content": "y"}])"));
  EXPECT_EQ(Json::parse(text.substr(0, text.find('\n'))).at("rejected"),
            Json::parse(R"([{"role": "assistant", "content": "n"}])"));
  EXPECT_NE(text.find("y<|im_end|>"), std::string::npos);
}

TEST(EndTokenTest, OneIsCutAndOnlyAtTheEnd) {
  const auto cut = [](std::string text, const std::vector<std::string>& more = {}) {
    CutEndToken(text, more);
    return text;
  };
  EXPECT_EQ(cut("a<|eot_id|>"), "a");
  EXPECT_EQ(cut("a</s></s>"), "a</s>");
  EXPECT_EQ(cut("</s> a"), "</s> a");
  EXPECT_EQ(cut("a<|x|>"), "a<|x|>");
  EXPECT_EQ(cut("a<|x|>", {"<|x|>"}), "a");
  EXPECT_EQ(cut("<eos>"), "");
}

// Each write in turn fails: the old file stays, no part of the new one is left.
TEST(ExporterTest, AFailureOrAStopLeavesTheOldFile) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  std::string rows;
  for (int i = 0; i < 3000; ++i)
    rows += "{\"prompt\": \"" + std::string(600, 'x') + std::to_string(i) + "\"}\n";
  ImportFiles(*store, ImportOf(WriteFile(folder / "in", rows), "d"));
  ExportRequest request{.dataset = "d", .out = folder / "out"};
  int failures = 0;
  for (int n = 1; n < 20; ++n) {
    WriteFile(folder / "out", "old");
    plumb::testing::FaultyFileSystem faulty;
    faulty.FailAt(n, plumb::testing::FaultyFileSystem::Fault::kNoSpace);
    request.files = &faulty;
    try {
      ExportDataset(*store, request);
      break;
    } catch (const Error&) {
      ++failures;
      const std::string now = ReadFile(folder / "out");
      EXPECT_TRUE(now == "old" || now.size() > 1000000) << n << ": " << now.size();
      EXPECT_FALSE(std::filesystem::exists(folder / "out.part")) << n;
    }
  }
  EXPECT_GT(failures, 3) << "opening, writes, sync, rename";
  WriteFile(folder / "out", "old");
  request.files = nullptr;
  request.progress = [](double, int64_t) { return false; };
  EXPECT_TRUE(ExportDataset(*store, request).stopped);
  EXPECT_EQ(ReadFile(folder / "out"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder / "out.part"));
}

TEST(JsonTextTest, EscapesAndRepairsAsAParserExpects) {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  std::string out;
  AppendJsonText(out, all + "\xE2\x98\x83");
  EXPECT_EQ(Json::parse(out).get<std::string>(), all + "\xE2\x98\x83");
  EXPECT_EQ(out, Json(all + "\xE2\x98\x83").dump())
      << "two writers of stored columns have to agree";
  std::string broken = "a\xFF\xE2\x98\x62\xC3";
  EXPECT_TRUE(RepairUtf8(broken));
  EXPECT_EQ(broken,
            "a\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_FALSE(RepairUtf8(broken));
}

}  // namespace
}  // namespace plumb::replay
