// What a run's folder holds. run/report/run_data.h
#include "run/report/run_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

void Put(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

bool Noted(const RunData& data, const std::string& text) {
  return std::any_of(data.notes.begin(), data.notes.end(),
                     [&](const std::string& note) { return note.find(text) != std::string::npos; });
}

TEST(RunDataTest, MetricsAreColumns) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl",
      "{\"step\":0,\"wall_s\":100.5,\"a\":1,\"b\":null,\"nested\":{\"step\":7,\"a\":9,\"c\":[1]}}\n"
      "{\"step\":2,\"wall_s\":101,\"a\":-2.5e3,\"text\":\"x\"}\n"
      "[{\"step\":3,\"a\":1}]\n7\n{\"step\":\"4\",\"a\":1}\n{\"a\":1}\n{\"step\":5,\"a\":1");
  const RunData data = LoadRun(folder.path());
  EXPECT_EQ(data.lines, 2);
  EXPECT_EQ(data.last_step, 2);
  EXPECT_EQ(data.first_wall_s, 100.5);
  ASSERT_EQ(data.columns.size(), 2u);
  EXPECT_EQ(data.columns.at("a").step, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(data.columns.at("a").value, (std::vector<double>{1, -2500}));
  EXPECT_TRUE(std::isnan(data.columns.at("b").value[0]));
  EXPECT_TRUE(Noted(data, "metrics.jsonl: 5 lines are not readable"));
  EXPECT_TRUE(Noted(data, "samples.jsonl is missing"));
  EXPECT_TRUE(Noted(data, "config.toml is missing"));
  EXPECT_TRUE(data.summary.is_null());
}

TEST(RunDataTest, AnswersToOnePromptAreOneGroup) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl", "");
  std::string samples;
  const auto add = [&](int step, int lease, const char* reward) {
    samples += "{\"step\":" + std::to_string(step) + ",\"lease_id\":" + std::to_string(lease) +
               ",\"reward\":" + reward + "}\n";
  };
  add(0, 1, "0.5");
  add(0, 1, "null");
  add(0, 2, "1");
  for (int i = 0; i < 20; ++i) add(1, 3, i == 17 ? "9" : i == 18 ? "-9" : "0.5");
  Put(folder / "samples.jsonl", samples);
  const RunData data = LoadRun(folder.path());
  ASSERT_EQ(data.samples.size(), 3u);
  EXPECT_EQ(data.sample_groups, 3);
  EXPECT_EQ(data.samples[0].answers.size(), 2u);
  EXPECT_EQ(data.samples[1].answers.size(), 1u);
  const SampleGroup& many = data.samples[2];
  EXPECT_EQ(many.answers_in_all, 20);
  ASSERT_EQ(many.answers.size(), RunData::kAnswers);
  const auto has = [&](double reward) {
    return std::any_of(many.answers.begin(), many.answers.end(),
                       [&](const auto& a) { return a["reward"] == reward; });
  };
  EXPECT_TRUE(has(9)) << "the best and the worst stay, whenever they came";
  EXPECT_TRUE(has(-9));
}

TEST(RunDataTest, ManyGroupsAreSpreadOverTheRun) {
  for (const int groups : {99, 100, 101, 1000, 12345}) {
    const TempFolder folder;
    Put(folder / "metrics.jsonl", "");
    std::string samples;
    for (int i = 0; i < groups; ++i)
      samples += "{\"step\":" + std::to_string(i) + ",\"lease_id\":0}\n";
    Put(folder / "samples.jsonl", samples);
    const RunData data = LoadRun(folder.path());
    EXPECT_EQ(data.sample_groups, groups);
    EXPECT_LE(data.samples.size(), RunData::kGroups);
    EXPECT_GE(data.samples.size(), RunData::kGroups / 2) << groups;
    EXPECT_EQ(data.samples.front().step, 0);
    EXPECT_EQ(data.samples.back().step, groups - 1) << "the newest is what people look at";
    for (size_t i = 2; i + 1 < data.samples.size(); ++i) {
      EXPECT_EQ(data.samples[i].step - data.samples[i - 1].step,
                data.samples[1].step - data.samples[0].step)
          << groups;
    }
  }
}

TEST(RunDataTest, NamesTheStepsThatAreMissing) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl",
      "{\"step\":0,\"a\":1}\n{\"step\":1,\"a\"\n{\"step\":2,\"a\":1}\n{\"step\":6,\"a\":1}\n");
  const RunData data = LoadRun(folder.path());
  EXPECT_TRUE(Noted(data, "metrics.jsonl: 1 line is not readable and left out."));
  EXPECT_TRUE(Noted(data, "metrics.jsonl lacks 4 steps: 1, 3 to 5."));
  Put(folder / "metrics.jsonl", "{\"step\":0,\"a\":1}\n{\"step\":1,\"a\":1}\n");
  EXPECT_FALSE(Noted(LoadRun(folder.path()), "lacks"));
}

TEST(RunDataTest, ReadsRecipeIdentityAndChanges) {
  const TempFolder folder;
  Put(folder / "config.toml", "[algorithm]\nname = \"dpo\"\n");
  Put(folder / "run.json", R"({"run_id":"a","version":"9.9"})");
  Put(folder / "summary.json", "[]");
  Put(folder / "changes.jsonl",
      "{\"step\":3,\"option\":\"run.steps\",\"before\":\"4\",\"now\":\"8\"}\n");
  const RunData data = LoadRun(folder.path());
  EXPECT_EQ(TextOf(data.recipe, "algorithm.name"), "dpo");
  EXPECT_EQ(TextIn(FindIn(data.identity, {"version"})), "9.9");
  EXPECT_TRUE(Noted(data, "summary.json is not readable"));
  EXPECT_TRUE(Noted(data, "from step 3 on \"run.steps\" is \"8\", before it was \"4\""));
}

TEST(RunDataTest, AFolderWithoutARunIsNotFound) {
  const TempFolder folder;
  try {
    LoadRun(folder.path());
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
  }
}

}  // namespace
}  // namespace plumb::run
