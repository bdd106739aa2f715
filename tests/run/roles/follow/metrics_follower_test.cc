#include "run/roles/follow/metrics_follower.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using namespace std::chrono_literals;
using configs::Follow;
using testing::Has;

// A package that writes down what it is told; a word in the file PLUMB_TEST_TOLD.do makes it fail.
constexpr char kStandIn[] = R"(import json, os, time
told = os.environ["PLUMB_TEST_TOLD"]
def do(): return open(told + ".do").read() if os.path.exists(told + ".do") else ""
def say(*what):
    with open(told, "a") as f: f.write(json.dumps(what) + "\n")
if do() == "missing": raise ImportError("No module named 'trackio'")
def init(**k):
    if do() == "no init": raise RuntimeError("no such account")
    say("init", k)
def log(metrics, step):
    while do() == "hang": time.sleep(0.05)
    say("log", step, metrics)
def finish(): say("end")
)";

class MetricsFollowerTest : public ::testing::Test {
 protected:
  MetricsFollowerTest() {
    const char* path = std::getenv("PYTHONPATH");
    if (path != nullptr) before_ = path;
    RealFileSystem().CreateDirectories(folder_.path);
    RealFileSystem().WriteFileAtomic(dir_.path() + "/trackio.py", kStandIn);
    setenv("PYTHONPATH", dir_.path().c_str(), 1);
    setenv("PLUMB_TEST_TOLD", told_.c_str(), 1);
  }
  ~MetricsFollowerTest() override {
    before_.empty() ? unsetenv("PYTHONPATH") : setenv("PYTHONPATH", before_.c_str(), 1);
    unsetenv("PLUMB_TEST_TOLD");
  }
  void Do(const std::string& what) { RealFileSystem().WriteFileAtomic(told_ + ".do", what); }
  void Write(int64_t step) {
    RealFileSystem()
        .OpenAppend(folder_.metrics())
        ->Append("{\"step\":" + std::to_string(step) + ",\"reward/mean\":0.5}\n");
  }
  std::vector<nlohmann::json> Told() {
    return RealFileSystem().Exists(told_) ? testing::Lines(told_) : std::vector<nlohmann::json>();
  }
  std::vector<int> Steps() {
    std::vector<int> out;
    for (const auto& line : Told()) {
      if (line[0] == "log") out.push_back(line[1]);
    }
    return out;
  }
  template <class F>
  bool Soon(const F& is) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (!is()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(20ms);
    }
    return true;
  }

  plumb::testing::TempFolder dir_;
  const RunFolder folder_{dir_.path() + "/run"};
  const std::string told_ = dir_.path() + "/told";
  std::string before_;
};

TEST_F(MetricsFollowerTest, TellsStepsWhileTheRunGoesOnAndTheLastOnesAtItsEnd) {
  MetricsFollower follower(Follow::kTrackio, folder_);
  EXPECT_TRUE(Told().empty()) << "a tracker's run begins with the first metrics";
  Write(0);
  follower.Begin();
  ASSERT_TRUE(Soon([&] { return Steps() == std::vector<int>{0}; }));
  EXPECT_EQ(follower.Look(), "");
  Write(1);
  Write(2);
  EXPECT_EQ(follower.Finish(), "");
  EXPECT_EQ(Steps(), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(Told().front()[1]["name"], "run");
  EXPECT_EQ(Told().back()[0], "end");
  EXPECT_EQ(follower.Finish(), "") << "twice is as good as once";
}

TEST_F(MetricsFollowerTest, ARunThatNeverTrainedMakesNothingAtTheTracker) {
  { MetricsFollower follower(Follow::kTrackio, folder_); }
  MetricsFollower follower(Follow::kTrackio, folder_);
  EXPECT_EQ(follower.Finish(), "");
  EXPECT_TRUE(Told().empty());
}

TEST_F(MetricsFollowerTest, MissingPackageAndMissingPythonAreSaidAtTheStart) {
  Do("missing");
  try {
    MetricsFollower follower(Follow::kTrackio, folder_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable);
    EXPECT_TRUE(Has(e.what(), "pip install trackio") && Has(e.what(), "metrics.follow"))
        << e.what();
  }
  try {
    MetricsFollower follower(Follow::kWandb, folder_, "/nowhere/python3");
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(Has(e.what(), "/nowhere/python3") && Has(e.what(), "metrics.follow")) << e.what();
  }
}

TEST_F(MetricsFollowerTest, ATrackerThatHangsIsLeftAtTheEnd) {
  Do("hang");
  MetricsFollower follower(Follow::kTrackio, folder_);
  Write(0);
  follower.Begin();
  ASSERT_TRUE(Soon([&] { return !Told().empty(); }));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(follower.Look(), "");
  const std::string said = follower.Finish(200ms);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
  EXPECT_TRUE(Has(said, "trackio") && Has(said, "tools/follow_metrics.py")) << said;
}

TEST_F(MetricsFollowerTest, ATrackerThatFailsIsSaidOnce) {
  Do("no init");
  MetricsFollower follower(Follow::kTrackio, folder_);
  Write(0);
  follower.Begin();
  std::string said;
  ASSERT_TRUE(Soon([&] { return !(said = follower.Look()).empty(); }));
  EXPECT_TRUE(Has(said, "exit code 1") && Has(said, "no such account")) << said;
  EXPECT_EQ(follower.Look(), "");
  EXPECT_EQ(follower.Finish(), "");
}

TEST_F(MetricsFollowerTest, ARunTellsEveryStepItWrites) {
  const std::string out = dir_.path() + "/toy";
  const std::vector<std::string> more = {"--set", "metrics.follow=trackio"};
  const testing::CliOutput ran = testing::Train(out, 2, more);
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(Steps(), (std::vector<int>{0, 1}));
  EXPECT_EQ(Told().front()[1]["config"]["run.steps"], 2);
  EXPECT_EQ(Told().back()[0], "end");
  // Without its package no run begins.
  Do("missing");
  const testing::CliOutput refused = testing::Train(out + "2", 2, more);
  EXPECT_NE(refused.code, 0);
  EXPECT_TRUE(Has(refused.err, "pip install trackio")) << refused.err;
  // A tracker that fails later is no business of the run.
  Do("no init");
  const testing::CliOutput alone = testing::Train(out + "3", 2, more);
  EXPECT_EQ(alone.code, 0) << alone.err;
  EXPECT_TRUE(Has(alone.out + alone.err, "tools/follow_metrics.py")) << alone.out << alone.err;
}

}  // namespace
}  // namespace plumb::run
