#include "run/board/run_facts.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "configs/config.h"
#include "run/session/run_lock.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

void Put(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

std::string Summary(int64_t steps, int64_t wanted, bool early) {
  return nlohmann::json{{"steps", steps}, {"wanted_steps", wanted}, {"stopped_early", early}}
      .dump();
}

TEST(RunFactsTest, ReadsWhatConfigsWrites) {
  const configs::Config config =
      configs::LoadRecipe(plumb::testing::SourcePath("configs/toy_grpo.toml"), {}).config;
  const Options options = OptionsOf(configs::ToToml(config));
  const TempFolder folder;
  Put(folder / "config.toml", configs::ToToml(config));
  RunFacts facts(folder.path());
  facts.Refresh(-1);
  EXPECT_EQ(facts.options(), options);
  EXPECT_EQ(facts.Option("run.steps"), "40");
  EXPECT_EQ(facts.wanted_steps(), 40);
  EXPECT_EQ(facts.Option("reward.parts.0.name"), "brief");
  EXPECT_EQ(facts.Option("optimizer.lr_schedule"), "constant");
  EXPECT_EQ(facts.Algorithm(), "grpo");
  EXPECT_EQ(facts.Model(), "new, 2 x 64");
  EXPECT_EQ(facts.Option("no.such"), "");
}

TEST(RunFactsTest, ListsTablesAndOddLinesOfARecipe) {
  const Options options = OptionsOf(
      "top = 1\n# no\n[a]\nx = \"text = with \\\"quotes\\\"\"\ny = [1, 2]\n[[b.c]]\nz = "
      "'q'\n[[b.c]]\n"
      "z=2\nnonsense\n");
  EXPECT_EQ(options, (Options{{"top", "1"},
                              {"a.x", "\"text = with \\\"quotes\\\"\""},
                              {"a.y", "[1, 2]"},
                              {"b.c.0.z", "q"},
                              {"b.c.1.z", "2"}}));
}

TEST(RunFactsTest, StatesFollowTheLockAndTheSummary) {
  const TempFolder folder;
  RealFileSystem().CreateDirectories(folder / "logs");
  Put(folder / "metrics.jsonl", "{\"step\":0}\n");
  RunFacts facts(folder.path());
  {
    const RunLock lock(folder.path());
    facts.Refresh(0);
    EXPECT_EQ(facts.state(), RunState::kRunning);
  }
  facts.Refresh(0);
  EXPECT_EQ(facts.state(), RunState::kFailed) << "gone without a summary";
  EXPECT_EQ(facts.reason(), "");
  Put(folder / "logs/train.log",
      "[info] ended by an error: an old one\n[x] resumed\n[y] ended by an error: the disk is full: "
      "a\n");
  facts.Refresh(0);
  EXPECT_EQ(facts.reason(), "the disk is full: a");

  Put(folder / "summary.json", Summary(1, 1, false));
  facts.Refresh(0);
  EXPECT_EQ(facts.state(), RunState::kEnded);
  EXPECT_EQ(facts.reason(), "");
  Put(folder / "summary.json", Summary(1, 4, false));
  facts.Refresh(0);
  EXPECT_EQ(facts.state(), RunState::kStopped) << "fewer steps than asked";
  Put(folder / "summary.json", Summary(1, 1, true));
  facts.Refresh(0);
  EXPECT_EQ(facts.state(), RunState::kStopped);
  EXPECT_EQ(NameOf(facts.state()), "stopped");

  // It was resumed, went on and was killed: the summary is that of the life before.
  facts.Refresh(5);
  EXPECT_EQ(facts.state(), RunState::kFailed);
  EXPECT_EQ(facts.reason(), "the disk is full: a");
  // It was ended at once by a person.
  Put(folder / "stopped", "");
  facts.Refresh(5);
  EXPECT_EQ(facts.state(), RunState::kStopped);
  EXPECT_EQ(facts.reason(), "");
  const RunLock again(folder.path());
  facts.Refresh(5);
  EXPECT_EQ(facts.state(), RunState::kRunning);
}

TEST(RunFactsTest, ChangesOfResumesAndHostileFiles) {
  const TempFolder folder;
  Put(folder / "changes.jsonl",
      "{\"step\":3,\"option\":\"optimizer.learning_rate\",\"before\":\"1\",\"now\":\"2\"}\ntorn "
      "{\n");
  Put(folder / "summary.json", "[[[");
  RunFacts facts(folder.path());
  facts.Refresh(-1);
  ASSERT_EQ(facts.Changes().size(), 1u);
  EXPECT_EQ(facts.Changes()[0]["option"], "optimizer.learning_rate");
  EXPECT_TRUE(facts.summary().is_null());
  EXPECT_EQ(facts.state(), RunState::kFailed);
  EXPECT_EQ(facts.reason(), "summary.json cannot be read");
  EXPECT_EQ(TextOf(folder / "changes.jsonl", 10), "") << "more than may be read";
  EXPECT_EQ(TextOf("/dev/zero", 10), "") << "no regular file";
}

}  // namespace
}  // namespace plumb::run
