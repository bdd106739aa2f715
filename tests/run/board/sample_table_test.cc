#include "run/board/sample_table.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "run/board/line_tail.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

std::string Line(int64_t step, int64_t lease, int sample, const std::string& prompt,
                 const std::string& completion) {
  return nlohmann::ordered_json{{"step", step},
                                {"lease_id", lease},
                                {"sample", sample},
                                {"prompt", prompt},
                                {"completion", completion},
                                {"reward", 0.5},
                                {"parts", {{"correct", 1.0}}},
                                {"finish", "stop"},
                                {"ground_truth", "42"}}
             .dump() +
         "\n";
}

// A file and the table over it.
struct Made {
  explicit Made(const std::string& text, size_t most = 1000)
      : path(folder / "samples.jsonl"), table(path, most), tail(path) {
    RealFileSystem().OpenAppend(path)->Append(text);
    Read();
  }
  void Read() {
    tail.Read([this] { table.Clear(); },
              [this](std::string_view lines, uint64_t at) { table.Append(lines, at); });
  }
  TempFolder folder;
  std::string path;
  SampleTable table;
  LineTail tail;
};

TEST(SampleTableTest, FindsGroupsByStepAndByPrompt) {
  const std::string p = "What is 6 x 7?", q = "And \"8\"?\nThink.";
  Made made(Line(0, 1, 0, p, "41") + Line(0, 1, 1, p, "42") + Line(0, 2, 0, q, "x") +
            Line(20, 9, 0, p, "42!"));
  EXPECT_EQ(made.table.answers(), 4u);
  EXPECT_EQ(made.table.Steps(10), (std::vector<int64_t>{0, 20}));
  EXPECT_EQ(made.table.Steps(1), (std::vector<int64_t>{20}));

  const auto prompts = made.table.Prompts(10);
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].begins, p) << "the one that came at two steps stands first";
  EXPECT_EQ(prompts[0].steps, (std::vector<int64_t>{0, 20}));
  EXPECT_EQ(prompts[1].begins, q);

  auto groups = made.table.Groups(0, std::nullopt, 100);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0]["prompt"], p);
  EXPECT_EQ(groups[0]["ground_truth"], "42");
  ASSERT_EQ(groups[0]["answers"].size(), 2u);
  EXPECT_EQ(groups[0]["answers"][1]["completion"], "42");
  EXPECT_EQ(groups[0]["answers"][1]["parts"]["correct"], 1.0);
  EXPECT_EQ(groups[1]["prompt"], q);

  groups = made.table.Groups(std::nullopt, prompts[0].prompt, 100);
  ASSERT_EQ(groups.size(), 2u) << "a group a step";
  EXPECT_EQ(groups[1]["step"], 20);
  EXPECT_EQ(made.table.Groups(20, prompts[0].prompt, 100).size(), 1u);
  EXPECT_EQ(made.table.Groups(7, std::nullopt, 100).size(), 0u);
  EXPECT_EQ(made.table.Groups(0, std::nullopt, 1)[0]["answers"].size(), 1u) << "bounded";
  EXPECT_EQ(made.table.Newest()["completion"], "42!");
}

TEST(SampleTableTest, ForgetsTheOldestPastItsBoundAndCountsWhatIsNoAnswer) {
  std::string text = "no json\n{\"prompt\":\"without a step\"}\n";
  for (int step = 0; step < 10; ++step)
    text += Line(step, step, 0, "p" + std::to_string(step), "c");
  Made made(text, /*most=*/4);
  EXPECT_EQ(made.table.answers(), 4u);
  EXPECT_EQ(made.table.left_out(), 6);
  EXPECT_EQ(made.table.unreadable(), 2);
  EXPECT_EQ(made.table.Steps(10), (std::vector<int64_t>{6, 7, 8, 9}));
}

TEST(SampleTableTest, AnEmptyGroundTruthIsNone) {
  const auto line = [](int64_t step, const std::string& truth) {
    return R"({"step":)" + std::to_string(step) +
           R"(,"lease_id":1,"sample":0,"prompt":"p","completion":"c")" + truth + "}\n";
  };
  Made made(line(0, R"(,"ground_truth":"")") + line(1, R"(,"ground_truth":null)") + line(2, ""));
  const auto groups = made.table.Groups(std::nullopt, std::nullopt, 100);
  ASSERT_EQ(groups.size(), 3u);
  for (const auto& group : groups) EXPECT_TRUE(group["ground_truth"].is_null()) << group.dump();
}

TEST(SampleTableTest, FollowsAFileThatAResumeMadeShorter) {
  Made made(Line(0, 1, 0, "p", "old") + Line(20, 2, 0, "p", "gone"));
  RealFileSystem().WriteFileAtomic(made.path, Line(0, 1, 0, "p", "old"));
  RealFileSystem().OpenAppend(made.path)->Append(Line(20, 3, 0, "p", "new"));
  made.Read();
  EXPECT_EQ(made.table.answers(), 2u);
  EXPECT_EQ(made.table.Newest()["completion"], "new");
  // What is read back when the file has changed under it is nothing, not another's text.
  RealFileSystem().WriteFileAtomic(made.path, "short\n");
  EXPECT_EQ(made.table.Groups(20, std::nullopt, 10).size(), 0u);
}

TEST(SampleTableTest, ALongPromptIsKeptByItsFirstWholeCharacters) {
  std::string prompt(119, 'a');
  prompt += "\u6F22 and more";
  Made made(Line(0, 1, 0, prompt, "c"));
  EXPECT_EQ(made.table.Prompts(1)[0].begins, std::string(119, 'a'));
  EXPECT_EQ(made.table.Groups(0, std::nullopt, 1)[0]["prompt"], prompt);
}

}  // namespace
}  // namespace plumb::run
