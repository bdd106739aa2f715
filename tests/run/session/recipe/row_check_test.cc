// run/session/recipe/row_check.h, by the verb that asks it: a plan refuses the rows that a run
// refuses.
#include "run/session/recipe/row_check.h"

#include <gtest/gtest.h>

#include <stdlib.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::CliOutput;
using testing::Has;
using testing::RunPlumb;

// Behind "plumb: error: ", where a run and its plan say the same.
std::string ErrorOf(const CliOutput& output) {
  const size_t at = output.err.rfind("plumb: error: ");
  return at == std::string::npos ? "" : output.err.substr(at);
}

// What a run refuses for its rows, before anybody starts one.
TEST(RowCheckTest, RowsThatARunRefusesAreRefusedInTheSameWords) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl", recipe = temp / "r.toml",
                    warm = temp / "warm.jsonl",
                    model = "[model]\nvocabulary = \"bytes\"\nmax_positions = 256\n",
                    online =
                        "[rollout]\nprompts_per_step = 2\nmax_new_tokens = 8\n"
                        "[[reward.parts]]\nkind = \"answer\"\n";
  struct Case {
    std::string rows, recipe, said;
  };
  const std::vector<Case> cases = {
      {"{\"prompt\": \"a\", \"sum\": 1}\n{\"prompt\": \"b\", \"sum\": 2}\n", online,
       "no row has a ground truth"},
      {"{\"prompt\": \"a\", \"answer\": \"1\"}\n", online, "has only 1 usable row"},
      {"{\"colour\": \"red\"}\n", online, "colour"},
      {"{\"prompt\": \"a\", \"answer\": \"1\"}\n", "[algorithm]\nname = \"dpo\"\n", ""},
      {"{\"colour\": \"red\"}\n", "[algorithm]\nname = \"sft\"\n", ""},
      {"{\"prompt\": \"a\", \"completion\": \"b\"}\n",
       "[algorithm]\nname = \"sft\"\n[sft]\nbatch = 4\nheldout = 0\n", "sft.batch = 4 is more"},
      {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n",
       "[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 4\nheldout = 0\n",
       "preference.batch = 4 is more"},
      {"{\"prompt\": \"a\", \"answer\": \"1\"}\n{\"prompt\": \"b\", \"answer\": \"2\"}\n",
       online + "[sft]\nsteps = 1\nbatch = 4\ndata = \"" + warm + "\"\n",
       "sft.batch is 4 but there are only"}};
  RealFileSystem().WriteFileAtomic(warm,
                                   "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                                   "{\"prompt\": \"c\", \"completion\": \"d\"}\n");
  for (const Case& one : cases) {
    RealFileSystem().WriteFileAtomic(rows, one.rows);
    RealFileSystem().WriteFileAtomic(recipe,
                                     model + "[data]\ntrain = \"" + rows + "\"\n" + one.recipe);
    const CliOutput run = RunPlumb({"train", recipe, "--out", temp / "run", "--quiet"});
    const CliOutput plan = RunPlumb({"plan", recipe, "--no-time"});
    EXPECT_EQ(plan.code, 2) << plan.err;
    EXPECT_EQ(plan.code, run.code) << run.err;
    EXPECT_EQ(ErrorOf(plan), ErrorOf(run));
    EXPECT_TRUE(Has(ErrorOf(plan), one.said) && !ErrorOf(plan).empty()) << plan.err;
  }
}

// A plan takes seconds, and may be of a run on another machine: what it did not look at is said.
TEST(RowCheckTest, WhatIsNotLookedAtIsSaid) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl", recipe = temp / "r.toml";
  RealFileSystem().WriteFileAtomic(rows, "{\"colour\": \"red\"}\n");
  std::filesystem::resize_file(rows, 33'000'000);
  RealFileSystem().WriteFileAtomic(
      recipe, "[model]\nvocabulary = \"bytes\"\n[data]\ntrain = \"" + rows +
                  "\"\n[[reward.parts]]\nkind = \"judge\"\nendpoint = \"http://127.0.0.1:1/v1\"\n"
                  "model = \"m\"\napi_key_env = \"PLUMB_TEST_NO_SUCH_VARIABLE\"\n");
  const CliOutput plan = RunPlumb({"plan", recipe, "--no-time"});
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_TRUE(Has(plan.err, "note: data.train = \"" + rows + "\" is larger than 32 MB"))
      << plan.err;
  EXPECT_TRUE(Has(plan.err, "note: a run on this machine is refused: ") &&
              Has(plan.err, "PLUMB_TEST_NO_SUCH_VARIABLE"))
      << plan.err;
}

// A terminal obeys nothing of a file.
TEST(RowCheckTest, ColumnsThatHoldControlCharactersAreShownAsPictures) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl", recipe = temp / "r.toml";
  RealFileSystem().WriteFileAtomic(rows, "{\"prompt\": \"a\", \"\\u001b[31mgolden\": 1}\n");
  RealFileSystem().WriteFileAtomic(recipe, "[model]\nvocabulary = \"bytes\"\n[data]\ntrain = \"" +
                                               rows +
                                               "\"\n[rollout]\nprompts_per_step = 1\n"
                                               "[[reward.parts]]\nkind = \"answer\"\n");
  const CliOutput plan = RunPlumb({"plan", recipe, "--no-time"});
  EXPECT_EQ(plan.code, 2) << plan.err;
  EXPECT_TRUE(Has(plan.err, "\u241b[31mgolden") && !Has(plan.err, "\x1b")) << plan.err;
}

// A run makes its store in its own folder; a plan may have none to write to.
TEST(RowCheckTest, WithoutAFolderForTemporaryFilesAPlanIsMadeAndSaysWhatItDidNotSee) {
  const TempFolder temp;
  const std::string rows = temp / "rows.jsonl", recipe = temp / "r.toml";
  RealFileSystem().WriteFileAtomic(rows,
                                   "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n");
  RealFileSystem().WriteFileAtomic(
      recipe, "[model]\nvocabulary = \"bytes\"\nmax_positions = 256\n[data]\ntrain = \"" + rows +
                  "\"\n[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 1\nheldout = 0\n");
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before ? before : "";
  ::setenv("TMPDIR", "/nowhere at all", 1);
  const CliOutput plan = RunPlumb({"plan", recipe, "--no-time"});
  if (before) ::setenv("TMPDIR", kept.c_str(), 1);
  else ::unsetenv("TMPDIR");
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_TRUE(Has(plan.err, "note: the rows were not looked at") &&
              Has(plan.err, "TMPDIR = /nowhere at all"))
      << plan.err;
}

}  // namespace
}  // namespace plumb::run
