// What the program carries of this folder's scripts, and the page in a browser.
// run/report/page_files.h
#include "run/report/page_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "common/base/file.h"
#include "run/report/report.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

TEST(PageFilesTest, AreTheFilesAsTheyStand) {
  const auto file = [](const char* name) {
    return RealFileSystem().ReadFile(plumb::testing::SourcePath(std::string("run/report/") + name),
                                     size_t{1} << 20);
  };
  EXPECT_EQ(ChartsScript(), file("charts.js"));
  EXPECT_EQ(ChartsStyle(), file("charts.css"));
  EXPECT_EQ(ReportScript(), file("report.js"));
  EXPECT_EQ(ReportStyle(), file("report.css"));
}

void Put(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

std::string Samples(int steps) {
  std::string out;
  for (int i = 0; i < steps; ++i) {
    for (const char* reward : {"1", "0.25", "null"}) {
      out += "{\"step\":" + std::to_string(i) + ",\"lease_id\":1,\"prompt\":\"a_very_long_word_" +
             std::string(300, 'w') +
             "\",\"completion\":\"<script>alert(1)</script> \\u0001\",\"reward\":" + reward +
             ",\"parts\":{\"a\":1},\"finish\":\"length\",\"ground_truth\":\"46\"}\n";
    }
  }
  return out;
}

std::string Metrics(int steps, const std::string& room) {
  std::string out;
  for (int i = 0; i < steps; ++i) {
    const std::string v = std::to_string(0.5 + 0.4 * std::sin(i * 0.3));
    out += "{\"step\":" + std::to_string(i) + ",\"wall_s\":" + std::to_string(1.7e9 + i);
    if (room == "rollouts") {
      for (const char* name : {"reward/mean", "reward/a/mean", "reward/b/mean",
                               "reward/zero_std_groups", "policy/clip_fraction", "objective/kl",
                               "response_length/mean", "time/step", "time/train"})
        out += std::string(",\"") + name + "\":" + v;
      out += ",\"reward/a.words/mean\":" + std::to_string(29 + i % 3);
    } else {
      for (const char* name : {"loss", "accuracy", "margin", "reward_chosen", "reward_rejected"})
        out += ",\"" + room + "/" + name + "\":" + v;
      if (i % 10 == 9) out += ",\"eval/loss\":" + v + ",\"eval/accuracy\":" + v;
    }
    out += std::string(",\"optim/grad_norm\":") + (i % 7 == 3 ? "null" : "1e-9") + "}\n";
  }
  return out;
}

// Errors of the console, shapes with coordinates that are no numbers, requests, a page wider than
// its window: tests/run/report/check_page.py says which. Needs chromium.
TEST(PageInABrowserTest, DrawsEveryCurveOnScreensOfBothSizes) {
  struct Case {
    const char* name;
    std::string metrics, samples;
  };
  const Case cases[] = {{"rollouts", Metrics(60, "rollouts"), Samples(30)},
                        {"one step", Metrics(1, "rollouts"), ""},
                        {"long", Metrics(3000, "rollouts"), ""},
                        {"pairs", Metrics(40, "dpo"), ""},
                        {"nothing", "", ""}};
  for (const Case& c : cases) {
    const TempFolder folder;
    Put(folder / "metrics.jsonl", c.metrics);
    Put(folder / "samples.jsonl", c.samples);
    WriteReport(folder.path(), folder / "report.html");
    const std::string log = folder / "log";
    const int status = std::system(("timeout 120 python3 '" +
                                    plumb::testing::SourcePath("tests/run/report/check_page.py") +
                                    "' '" + (folder / "report.html") + "' >'" + log + "' 2>&1")
                                       .c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const std::string said = RealFileSystem().ReadFile(log, size_t{1} << 20);
    if (code == 77 || code == 127)
      GTEST_SKIP() << "SKIPPED, the page was not opened in a browser: " << said;
    EXPECT_EQ(code, 0) << c.name << "\n" << said;
  }
}

}  // namespace
}  // namespace plumb::run
