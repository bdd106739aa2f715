// plumb serve as a process: it says where it is, answers, and ends by a signal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/run/cli_runner.h"
#include "tests/run/models/toy_model.h"
#include "tests/run/serve/api_client.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::Has;
using testing::RunPlumb;

class Served {
 public:
  explicit Served(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"plumb", "serve"});
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    const std::string program = plumb::testing::BinaryPath("plumb");
    int out[2];
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    child_ = fork();
    if (child_ == 0) {
      dup2(out[1], STDOUT_FILENO);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    close(out[1]);
    for (char c; read(out[0], &c, 1) == 1 && c != '\n';) said_ += c;
    close(out[0]);
  }
  const std::string& said() const { return said_; }
  int port() const {
    const std::string before = "serve: http://127.0.0.1:";
    return said_.starts_with(before) ? std::stoi(said_.substr(before.size())) : 0;
  }
  int Stop(int signal) {
    int status = 0;
    kill(child_, signal);
    waitpid(child_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t child_;
  std::string said_;
};

TEST(ServeCommandTest, AnswersUntilASignalAndLetsWhatRunsEnd) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "toy", {.max_positions = 9000, .end_token = false});
  Served served({temp / "toy", "--port", "0", "--threads", "1", "--kv-mb", "64"});
  ASSERT_GT(served.port(), 0) << served.said();
  EXPECT_TRUE(Has(served.said(), "/v1 answers for toy (Ctrl-C ends it)"));
  const nlohmann::json body = {{"prompt", "1+1="}, {"max_tokens", 1000}, {"stream", true}};
  testing::Reader reader(served.port(),
                         testing::RequestText("POST", "/v1/completions", body.dump()));
  ASSERT_TRUE(reader.ReadUntil("data: {"));
  EXPECT_EQ(served.Stop(SIGINT), 0);
  EXPECT_TRUE(reader.ReadUntil("data: [DONE]"));
}

TEST(ServeCommandTest, WhatIsCutOffIsSaidByTheExitCode) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "toy", {.max_positions = 90000, .end_token = false});
  Served served({temp / "toy", "--port", "0", "--threads", "1", "--kv-mb", "64", "--grace", "0",
                 "--max-new-tokens", "80000"});
  ASSERT_GT(served.port(), 0) << served.said();
  const nlohmann::json body = {{"prompt", "1+1="}, {"max_tokens", 80000}, {"stream", true}};
  testing::Reader reader(served.port(),
                         testing::RequestText("POST", "/v1/completions", body.dump()));
  ASSERT_TRUE(reader.ReadUntil("data: {"));
  EXPECT_EQ(served.Stop(SIGTERM), kExitFewerSteps);
  EXPECT_TRUE(reader.ReadUntil("\"code\":\"ending\""));
}

TEST(ServeCommandTest, TheKeyComesFromTheEnvironment) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "toy");
  ::unsetenv("PLUMB_TEST_SERVE_KEY");
  const auto none = RunPlumb({"serve", temp / "toy", "--api-key-env", "PLUMB_TEST_SERVE_KEY"});
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(Has(none.err, "PLUMB_TEST_SERVE_KEY")) << none.err;
  ::setenv("PLUMB_TEST_SERVE_KEY", "abc", 1);
  Served served({temp / "toy", "--port", "0", "--threads", "1", "--kv-mb", "64", "--api-key-env",
                 "PLUMB_TEST_SERVE_KEY"});
  ::unsetenv("PLUMB_TEST_SERVE_KEY");
  ASSERT_GT(served.port(), 0) << served.said();
  EXPECT_EQ(testing::Get(served.port(), "/v1/models").status, 401);
  EXPECT_EQ(testing::Get(served.port(), "/v1/models", "Authorization: Bearer abc\r\n").status, 200);
  EXPECT_EQ(served.Stop(SIGTERM), 0);
}

TEST(ServeCommandTest, SaysWhatIsNotThere) {
  const plumb::testing::TempFolder temp;
  EXPECT_EQ(RunPlumb({"serve", temp / "none"}).code, 3);
  testing::WriteToyModel(temp / "toy");
  EXPECT_EQ(RunPlumb({"serve", temp / "toy", "--adapter", "nofolder"}).code, 2);
  EXPECT_EQ(RunPlumb({"serve", temp / "toy", "--adapter", "a=" + (temp / "toy")}).code, 2);
  EXPECT_EQ(RunPlumb({"serve", temp / "toy", "--port", "70000"}).code, 2);
}

}  // namespace
}  // namespace plumb::run
