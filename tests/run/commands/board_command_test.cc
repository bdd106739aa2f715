#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tests/run/board/made_runs.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/http_get.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

TEST(BoardCommandTest, ServesUntilASignalAndSaysWhere) {
  const TempFolder temp;
  plumb::testing::RunMaker(temp / "runs/a", {}).WriteAll();
  int out[2];
  ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
  const std::string program = plumb::testing::BinaryPath("plumb"), runs = temp / "runs";
  const pid_t child = fork();
  if (child == 0) {
    dup2(out[1], STDOUT_FILENO);
    execl(program.c_str(), "plumb", "board", runs.c_str(), "--port", "0",
          static_cast<char*>(nullptr));
    _exit(127);
  }
  close(out[1]);
  std::string said;
  for (char c; read(out[0], &c, 1) == 1 && c != '\n';) said += c;
  const std::string before = "board: http://127.0.0.1:";
  ASSERT_EQ(said.rfind(before, 0), 0u) << said;
  EXPECT_TRUE(Has(said, "(1 runs; Ctrl-C ends it)"));
  const int port = std::stoi(said.substr(before.size()));
  const std::string reply = plumb::testing::HttpGet(
      port, "GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(Has(reply, "\"name\":\"a\"")) << reply;
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  close(out[0]);
}

TEST(BoardCommandTest, SaysWhatIsNotThere) {
  const TempFolder temp;
  EXPECT_EQ(RunPlumb({"board", temp / "none"}).code, 3);
  for (const char* verb : {"watch", "report"}) {
    const auto none = RunPlumb({verb, temp / "none"});
    EXPECT_EQ(none.code, 3);
    EXPECT_TRUE(Has(none.err, "there is nothing here")) << none.err;
  }
  const auto output = RunPlumb({"watch", temp.path()});
  EXPECT_EQ(output.code, 3);
  EXPECT_TRUE(Has(output.err, "no run here"));
  EXPECT_EQ(RunPlumb({"board", temp.path(), "--port", "70000"}).code, 2);
  EXPECT_EQ(RunPlumb({"watch", temp.path(), "--rate", "0"}).code, 2);
}

TEST(WatchCommandTest, WithoutATerminalALineAndTheEnd) {
  const TempFolder temp;
  plumb::testing::RunMaker(temp / "a", {}).WriteAll();
  const auto output = RunPlumb({"watch", temp / "a"});
  EXPECT_EQ(output.code, 0) << output.err;
  EXPECT_EQ(output.out.rfind("step 400/400  reward 0.", 0), 0u) << output.out;
  EXPECT_TRUE(output.out.ends_with("\nended\n"));
}

}  // namespace
}  // namespace plumb::run
