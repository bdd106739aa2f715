#include "run/board/board_page.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "common/base/error.h"
#include "run/board/board_server.h"
#include "run/session/run_lock.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::MakeRuns;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

// A browser looks at a board of which one run goes on: board_page.py says at what. Screenshots stay
// where PLUMB_SCREENSHOTS says.
TEST(BoardPageTest, ABrowserSeesItWhole) {
  const TempFolder temp;
  MakeRuns(temp / "runs");
  const RunLock lock(temp / "runs/arithmetic_grpo");
  RunCatalog catalog({temp / "runs"});
  std::unique_ptr<BoardServer> server;
  try {
    server = std::make_unique<BoardServer>(catalog, BoardOptions{});
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kUnsupported) GTEST_SKIP() << e.what();
    throw;
  }
  std::atomic<bool> stop{false};
  std::thread run([&] {
    plumb::testing::MadeRun made;
    made.steps = 312;
    RunMaker maker(temp / "runs/arithmetic_grpo", made);
    for (int64_t step = 312; !stop; ++step) {
      maker.AppendTo("metrics.jsonl", maker.MetricsLine(step));
      if (step % 20 == 0) maker.AppendTo("samples.jsonl", maker.SampleLines(step));
      for (int i = 0; i < 10 && !stop; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  const char* screenshots = std::getenv("PLUMB_SCREENSHOTS");
  const std::string command =
      "python3 '" + plumb::testing::SourcePath("tests/run/board/board_page.py") + "' '" +
      server->url() + "' '" + (screenshots != nullptr ? screenshots : temp / "screenshots") +
      "' --run arithmetic_grpo --with arithmetic_ppo --with sweep/lr_1e-3";
  const int status = std::system(command.c_str());
  stop = true;
  run.join();
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77)
    GTEST_SKIP()
        << "no Chromium here (Debian: apt-get install chromium): the page was not looked at";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace plumb::run
