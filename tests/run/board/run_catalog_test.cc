#include "run/board/run_catalog.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "run/board/run_view.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::MadeRun;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

constexpr std::chrono::milliseconds kAtOnce{0};

std::vector<std::string> Names(RunCatalog& catalog) {
  std::vector<std::string> names;
  for (const auto& run : catalog.Runs()) names.push_back(run->name());
  return names;
}

void Make(const std::string& folder, int64_t steps = 3) {
  MadeRun run;
  run.steps = steps;
  RunMaker(folder, run).WriteAll();
}

TEST(RunCatalogTest, FindsRunsBelowItsFoldersAndNamesThem) {
  const TempFolder temp;
  Make(temp / "runs/b");
  Make(temp / "runs/a");
  Make(temp / "runs/sweep/one");
  Make(temp / "runs/.hidden/no");
  Make(temp / "runs/a/inner");  // what lies in a run is its own affair
  Make(temp / "other/a");
  RealFileSystem().CreateDirectories(temp / "runs/empty");
  RunCatalog catalog({temp / "runs/", temp / "other/a"}, false, RunCatalog::kMaxBytes, kAtOnce);
  EXPECT_EQ(Names(catalog), (std::vector<std::string>{"a", "a (2)", "b", "sweep/one"}));
  EXPECT_EQ(catalog.Find("a (2)")->folder(), temp / "other/a");
  const auto kept = catalog.Find("b");
  EXPECT_EQ(catalog.Find("b"), kept) << "a look again is at the same run";

  // Runs come and go.
  Make(temp / "runs/c");
  std::filesystem::remove_all(temp / "runs/a");
  EXPECT_EQ(Names(catalog), (std::vector<std::string>{"a", "b", "c", "sweep/one"}));
  EXPECT_EQ(catalog.Find("a")->folder(), temp / "other/a");
}

TEST(RunCatalogTest, ANameIsNeverAPath) {
  const TempFolder temp;
  Make(temp / "runs/a");
  Make(temp / "secret");
  RunCatalog catalog({temp / "runs"}, false, RunCatalog::kMaxBytes, kAtOnce);
  for (const char* name : {"../secret", "a/../../secret", "./a", "a/", "/a", "", ".", ".."})
    EXPECT_EQ(catalog.Find(name), nullptr) << name;
  EXPECT_EQ(catalog.Find(temp / "secret"), nullptr);
  EXPECT_NE(catalog.Find("a"), nullptr);
}

TEST(RunCatalogTest, AMissingFolderIsAnErrorUnlessItMayCome) {
  const TempFolder temp;
  try {
    RunCatalog catalog({temp / "none"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_EQ(e.where(), temp / "none");
  }
  RunCatalog catalog({temp / "none"}, /*may_be_missing=*/true, RunCatalog::kMaxBytes, kAtOnce);
  EXPECT_TRUE(catalog.Runs().empty());
  Make(temp / "none/first");
  EXPECT_EQ(Names(catalog), (std::vector<std::string>{"first"}));
}

TEST(RunCatalogTest, LetsGoOfNumbersThatNobodyAskedForLongest) {
  const TempFolder temp;
  for (const char* name : {"a", "b", "c"}) Make(temp / name, 50);
  RunCatalog catalog({temp.path()}, false, /*max_bytes=*/1, kAtOnce);
  for (const char* name : {"a", "b", "c"})
    catalog.Find(name)->WithMetrics(
        [](const MetricTable& m, const RunFacts&) { EXPECT_EQ(m.rows(), 50u); });
  const auto runs = catalog.Runs();
  EXPECT_EQ(runs[0]->bytes(), 0u);
  EXPECT_GT(runs[2]->bytes(), 0u);
  catalog.Find("a")->WithMetrics(
      [](const MetricTable& m, const RunFacts&) { EXPECT_EQ(m.rows(), 50u); });
}

TEST(RunViewTest, AGlanceSaysWhatTheTablesSay) {
  const TempFolder temp;
  Make(temp / "a", 400);
  RunView glanced("a", temp / "a", kAtOnce), loaded("a", temp / "a", kAtOnce);
  loaded.WithMetrics([](const MetricTable&, const RunFacts&) {});
  const RunView::Glance one = glanced.Look(), two = loaded.Look();
  EXPECT_EQ(glanced.bytes(), 0u) << "the end of the file was enough";
  EXPECT_EQ(one.step, 399);
  EXPECT_EQ(one.step, two.step);
  EXPECT_EQ(one.wall_s, two.wall_s);
  EXPECT_EQ(one.steps, 400);
  EXPECT_EQ(one.state, RunState::kEnded);
  EXPECT_EQ(one.algorithm, "grpo");
  EXPECT_EQ(one.newest.at("reward/mean").value, two.newest.at("reward/mean").value);
  EXPECT_EQ(one.newest.at("eval/accuracy").step, 399);
}

TEST(RunViewTest, FollowsARunAndItsResume) {
  const TempFolder temp;
  MadeRun made;
  made.steps = 10;
  RunMaker maker(temp / "a", made);
  maker.WriteAll();
  RunView run("a", temp / "a", kAtOnce);
  uint64_t revision = 0;
  const auto steps = [&] {
    int64_t last = -2;
    run.WithMetrics([&](const MetricTable& m, const RunFacts&) {
      last = m.last_step();
      revision = m.revision();
    });
    return last;
  };
  EXPECT_EQ(steps(), 9);
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(10));
  EXPECT_EQ(steps(), 10);
  EXPECT_EQ(run.Look().step, 10);
  // A resume from the checkpoint of step 4.
  const uint64_t before = revision;
  std::string kept;
  for (int64_t step = 0; step < 4; ++step) kept += maker.MetricsLine(step);
  RealFileSystem().WriteFileAtomic(temp / "a/metrics.jsonl", kept);
  EXPECT_EQ(steps(), 3);
  EXPECT_NE(revision, before);
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(4));
  EXPECT_EQ(steps(), 4);
  run.WithSamples([](const SampleTable& samples) { EXPECT_EQ(samples.answers(), 4u); });
  EXPECT_GT(run.bytes(), 0u);
  run.Unload();
  EXPECT_EQ(run.bytes(), 0u);
  EXPECT_EQ(steps(), 4);
}

}  // namespace
}  // namespace plumb::run
