// run/session/recipe/missing_truths.h: rows that lack what a Python reward takes as the right
// answer are counted, by `plumb reward test` and by a run.
#include "run/session/recipe/missing_truths.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;

TEST(MissingTruthsTest, AColumnOrTheGroundTruthWillDo) {
  Prompt with, column, null, without;
  with.ground_truth = "2";
  column.extra_json = R"({"solution": "2"})";
  null.extra_json = R"({"solution": null})";
  const std::vector<const Prompt*> all = {&with, &column, &null, &without};
  EXPECT_EQ(MissingTruths("mine", {}, all), "");
  EXPECT_EQ(MissingTruths("mine", {{"solution"}}, std::span(all).first(2)), "");
  EXPECT_TRUE(
      MissingTruths("mine", {{"solution"}}, all)
          .starts_with("2 of 4 prompts have no ground truth, which reward part 'mine' takes "
                       "as 'solution'"));
  const std::string answer = MissingTruths("mine", {{"answer"}}, all);
  EXPECT_TRUE(answer.starts_with("3 of 4")) << answer;
  EXPECT_TRUE(
      answer.ends_with("; the column 'solution' looks like one: data.map = { answer = "
                       "\"solution\" }"))
      << answer;
  EXPECT_TRUE(MissingTruths("mine", {{"answer"}}, std::span(all).last(2))
                  .ends_with("nothing to compare them with"));
}

TEST(MissingTruthsTest, RewardTestAndARunSayItOnceAtTheStart) {
  if (std::system("python3 -c 'import json' > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "NOT TESTED: python3 is not here";
  const TempFolder temp;
  const std::string file =
      plumb::testing::SourcePath("tests/reward/python/functions/trl_inclusion.py");
  RealFileSystem().WriteFileAtomic(
      temp / "parts.toml",
      "[[reward.parts]]\nname = \"mine\"\nkind = \"python\"\npath = \"" + file + "\"\n");
  RealFileSystem().WriteFileAtomic(temp / "samples.jsonl",
                                   "{\"prompt\": \"a\", \"answer\": \"2\", \"completion\": \"2\"}\n"
                                   "{\"prompt\": \"b\", \"completion\": \"3\"}\n");
  const std::string said =
      "note: 1 of 2 prompts have no ground truth, which reward part 'mine' "
      "takes as 'answer'";
  const std::string out = temp / "out";
  const std::string plumb = "timeout 60 " + plumb::testing::BinaryPath("plumb");
  ASSERT_EQ(std::system((plumb + " reward test " + (temp / "parts.toml") + " --samples " +
                         (temp / "samples.jsonl") + " > " + out + " 2>&1")
                            .c_str()),
            0);
  EXPECT_TRUE(Has(testing::Read(out), said)) << testing::Read(out);

  const std::string data = temp / "rows.jsonl";
  RealFileSystem().WriteFileAtomic(
      data, "{\"prompt\": \"1+1=\", \"answer\": \"2\"}\n{\"prompt\": \"1+2=\"}\n");
  std::string train = plumb;
  for (const std::string& word :
       testing::TrainLine(temp / "run", 1,
                          {"--set", "data.train=" + data, "--set", "data.eval=", "--set",
                           "sft.steps=0", "--set", "rollout.prompts_per_step=2"}))
    train += " '" + word + "'";
  const std::string recipe = temp / "run.toml", part = "kind = \"answer\"\n";
  std::string text = testing::Read(recipe);
  ASSERT_TRUE(Has(text, part)) << text;
  RealFileSystem().WriteFileAtomic(
      recipe,
      text.replace(text.find(part), part.size(), "kind = \"python\"\npath = \"" + file + "\"\n"));
  ASSERT_EQ(std::system((train + " > " + (temp / "run.out") + " 2>&1").c_str()), 0)
      << testing::Read(temp / "run.out");
  const std::string run = testing::Read(temp / "run.out");
  EXPECT_TRUE(Has(run, "1 of 2 prompts have no ground truth, which reward part 'correct'")) << run;

  // Where none has one, a parameter without a default is what the run cannot do without.
  RealFileSystem().WriteFileAtomic(data,
                                   "{\"prompt\": \"1+1=\", \"solution\": \"2\"}\n"
                                   "{\"prompt\": \"1+2=\", \"solution\": \"3\"}\n");
  EXPECT_NE(std::system((train + " --overwrite > " + (temp / "run.out") + " 2>&1").c_str()), 0);
  const std::string refused = testing::Read(temp / "run.out");
  EXPECT_TRUE(Has(refused,
                  "reward part 'correct': no row has a ground truth or a column 'answer', and the "
                  "function takes it as a parameter without a default; the column 'solution' looks "
                  "like one: data.map = { answer = \"solution\" }"))
      << refused;
}

}  // namespace
}  // namespace plumb::run
