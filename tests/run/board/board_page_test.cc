#include "run/board/board_page.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "common/base/error.h"
#include "run/board/board_server.h"
#include "run/report/page_files.h"
#include "run/session/run_lock.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::MakeRuns;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

// The report's drawing of curves is the board's, too.
TEST(BoardPageTest, DrawsWithTheReportsCharts) {
  const auto& files = BoardPage();
  const auto text = [&](std::string_view path) {
    const auto found =
        std::find_if(files.begin(), files.end(), [&](const PageFile& f) { return f.path == path; });
    return found == files.end() ? std::string_view() : found->text;
  };
  EXPECT_FALSE(ChartsScript().empty());
  EXPECT_EQ(text("/charts.js"), ChartsScript());
  EXPECT_EQ(text("/charts.css"), ChartsStyle());
  for (const PageFile& file : files) {
    if (file.path == "/charts.js") continue;
    EXPECT_EQ(file.text.find("createElementNS"), std::string_view::npos) << file.path;
  }
}

// A run that goes on as long as this lives.
class GoingRun {
 public:
  explicit GoingRun(const std::string& folder)
      : lock_(folder), writer_([this, folder] { Write(folder); }) {}
  ~GoingRun() {
    stop_ = true;
    writer_.join();
  }

 private:
  void Write(const std::string& folder) {
    plumb::testing::MadeRun made;
    made.steps = 312;
    RunMaker maker(folder, made);
    for (int64_t step = 312; !stop_; ++step) {
      maker.AppendTo("metrics.jsonl", maker.MetricsLine(step));
      if (step % 20 == 0) maker.AppendTo("samples.jsonl", maker.SampleLines(step));
      for (int i = 0; i < 10 && !stop_; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  const RunLock lock_;
  std::atomic<bool> stop_{false};
  std::thread writer_;
};

// A browser looks at a board of which one run goes on: board_page.py says at what. Screenshots stay
// where PLUMB_SCREENSHOTS says.
void Look(const TempFolder& temp, const BoardOptions& options, const std::string& more) {
  MakeRuns(temp / "runs");
  RunCatalog catalog({temp / "runs"});
  std::unique_ptr<BoardServer> server;
  try {
    server = std::make_unique<BoardServer>(catalog, options);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kUnsupported) GTEST_SKIP() << e.what();
    throw;
  }
  const GoingRun run(temp / "runs/arithmetic_grpo");
  const int status =
      std::system(("python3 '" + plumb::testing::SourcePath("tests/run/board/board_page.py") +
                   "' '" + server->url() + "' '" + more)
                      .c_str());
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77)
    GTEST_SKIP()
        << "no Chromium here (Debian: apt-get install chromium): the page was not looked at";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(BoardPageTest, ABrowserSeesItWhole) {
  const char* screenshots = std::getenv("PLUMB_SCREENSHOTS");
  const TempFolder temp;
  Look(temp, {},
       std::string(screenshots != nullptr ? screenshots : temp / "screenshots") +
           "' --run arithmetic_grpo --with arithmetic_ppo --with sweep/lr_1e-3");
}

// Pairs: no answers, no ring.
TEST(BoardPageTest, ARunWithoutAnswersSaysSo) {
  const TempFolder temp;
  Look(temp, {}, temp / "screenshots" + std::string("' --run hh_dpo"));
}

// More pages than the board has readers for: those too many ask by themselves.
TEST(BoardPageTest, APageWithoutEventsAsksByItself) {
  const TempFolder temp;
  BoardOptions options;
  options.max_readers = 0;
  Look(temp, options, temp / "screenshots" + std::string("' --run arithmetic_grpo --refused"));
}

}  // namespace
}  // namespace plumb::run
