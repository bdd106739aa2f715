#include "replay/datasets/dump.h"

#include <nlohmann/json.hpp>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(DumpTest, CountsAndOneRecordWhileTheRunHoldsTheStore) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  store->PutPrompts(kTrainDataset, SomePrompts(12));
  for (uint64_t id = 3; id < 8; ++id) store->Insert(PlainGroup(id));
  TrajectoryGroup odd = PlainGroup(8);
  odd.trajectories[0].completion = "bytes \xFF\x1B[31m end";
  odd.trajectories[1].scored = false;
  odd.trajectories[1].unscored_reason = "timeout";
  store->Insert(odd);
  InsertDropped(*store, PlainGroup(9), "crashed");
  store->PutEvaluation(0, 1, 5);
  store->Trim(Purpose::kEval, uint64_t{3} << 32);

  const auto j = nlohmann::json::parse(DumpStore(folder / "store", {.json = true, .verify = true}));
  EXPECT_EQ(j["run_id"], "run");
  EXPECT_EQ(j["format_version"], 1);
  EXPECT_EQ(j["datasets"]["prompts"]["train"], 12);
  EXPECT_EQ(j["groups"]["train"]["stored"], 7);
  EXPECT_EQ(j["groups"]["train"]["first_lease"], 3);
  EXPECT_EQ(j["groups"]["train"]["last_lease"], 9);
  EXPECT_EQ(j["groups"]["eval"]["stored"], 0);
  EXPECT_EQ(j["groups"]["eval"]["trimmed_before_version"], 3);
  EXPECT_EQ(j["evaluations"][0]["prompts"], 5);
  EXPECT_EQ(j["verified"]["groups"], 7);
  EXPECT_TRUE(j["verified"]["problems"].empty());
  EXPECT_EQ(j["record"]["lease"], 3);
  EXPECT_EQ(j["record"]["answers"][1]["completion"], "answer 3/1");
  EXPECT_EQ(j["record"]["answers"][0]["parts"]["correct"], 1.0);

  const std::string text = DumpStore(folder / "store", {.lease = 8});
  EXPECT_NE(text.find("unscored_reason: timeout"), std::string::npos) << text;
  // a model's bytes do not reach the terminal as commands
  EXPECT_EQ(text.find('\x1B'), std::string::npos);
  EXPECT_NE(DumpStore(folder / "store", {.lease = 9}).find("dropped: crashed"), std::string::npos);
  EXPECT_THROWS(ErrorCode::kNotFound, "no train group of lease 77",
                DumpStore(folder / "store", {.lease = 77}));
  EXPECT_THROWS(ErrorCode::kNotFound, "no store here", DumpStore(folder / "elsewhere"));
}

TEST(DumpTest, AStoreOfPreferencesShowsItsDatasetsScoresAndARow) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  ImportFiles(
      *store,
      ImportOf(
          WriteFile(
              folder / "pairs",
              R"({"prompt": "p", "chosen": "good", "rejected": "bad", "margin": 0.5, "id": 7, "say": "\"hi\""})"),
          "hh"));
  store->DescribeScore("abc", "one part");
  const auto j = nlohmann::json::parse(DumpStore(folder / "store", {.json = true}));
  EXPECT_EQ(j["datasets"], nlohmann::json::parse(R"({"preferences": {"hh": 1}})"));
  EXPECT_EQ(j["scores"]["abc"], "one part");
  EXPECT_EQ(j["record"]["kind"], "pair");
  EXPECT_EQ(j["record"]["prompt"], "p");
  EXPECT_EQ(j["record"]["rejected"][0]["content"], "bad");
  EXPECT_EQ(j["record"]["margin"], 0.5);
  EXPECT_EQ(j["record"]["other_columns"], nlohmann::json::parse(R"({"id": 7, "say": "\"hi\""})"));
  const std::string text = DumpStore(folder / "store");
  for (const char* line : {"\ndatasets:\n  preferences:\n    hh: 1\n",
                           "\n  other_columns:\n    id: 7\n", "\n    say: \"hi\"\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  EXPECT_EQ(text.find("datasets: none"), std::string::npos) << text;
}

TEST(DumpTest, DatasetsStandUnderWhatTheyHold) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const auto import = [&](const char* row, const char* name) {
    ImportFiles(*store, ImportOf(WriteFile(folder / name, row), name));
  };
  import(R"({"prompt": "p", "chosen": "good", "rejected": "bad"})", "pairs");
  import(R"({"prompt": "p", "completion": "c", "label": true})", "judged");
  import(R"({"prompt": "p", "completion": "c"})", "sft");
  import(R"({"prompt": "p", "answer": "a"})", "asked");
  const auto j = nlohmann::json::parse(DumpStore(folder / "store", {.json = true}));
  EXPECT_EQ(j["datasets"], nlohmann::json::parse(R"({"prompts": {"asked": 1},
    "preferences": {"pairs": 1}, "labelled_completions": {"judged": 1},
    "demonstrations": {"sft": 1}})"));
}

TEST(DumpTest, AStoreOfPromptsShowsTheFirst) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  EXPECT_NE(DumpStore(folder / "store").find("datasets: none"), std::string::npos);
  store->PutPrompts(kTrainDataset, SomePrompts(2));
  const auto j = nlohmann::json::parse(DumpStore(folder / "store", {.json = true}));
  EXPECT_EQ(j["record"]["row"], 0);
  EXPECT_EQ(j["record"]["dataset"], "train");
}

TEST(DumpTest, LongTextsAreCutForPeopleOnly) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  TrajectoryGroup group = PlainGroup(1);
  group.trajectories[0].completion = std::string(5000, 'y');
  store->Insert(group);
  EXPECT_NE(DumpStore(folder / "store").find("(5000 characters)"), std::string::npos);
  EXPECT_NE(DumpStore(folder / "store", {.json = true}).find(std::string(5000, 'y')),
            std::string::npos);
}

}  // namespace
}  // namespace plumb::replay
