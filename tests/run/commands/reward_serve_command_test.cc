// plumb reward serve and plumb keys generate as processes, asked from C++ and from Python.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "common/base/file.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "reward/models/reward_model.h"
#include "reward/scorer.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

// A program with its first line of output read; ended by SIGTERM at the latest when this goes.
class Running {
 public:
  explicit Running(const std::vector<std::string>& command) {
    int out[2];
    EXPECT_EQ(::pipe(out), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], 1);
      std::vector<char*> argv;
      for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
      argv.push_back(nullptr);
      ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    file_ = ::fdopen(out[0], "r");
    first_line_ = Line();
  }
  ~Running() {
    Stop();
    std::fclose(file_);
  }
  int Stop() {
    if (pid_ <= 0) return status_;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, &status_, 0);
    pid_ = -1;
    return status_;
  }
  std::string Line() {
    char line[1000];
    return std::fgets(line, sizeof line, file_) != nullptr ? line : "";
  }
  const std::string& first_line() const { return first_line_; }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  FILE* file_ = nullptr;
  std::string first_line_;
};

constexpr char kPlumb[] = PLUMB_BINARY_DIR "/plumb";
constexpr char kRecipe[] = PLUMB_SOURCE_DIR "/configs/arithmetic_grpo.toml";

TrajectoryGroup Group(const std::vector<std::string>& completions) {
  TrajectoryGroup group;
  group.lease.prompt.text = "2+2=";
  group.lease.prompt.ground_truth = "4";
  for (const std::string& completion : completions) {
    group.trajectories.emplace_back();
    group.trajectories.back().completion = completion;
  }
  return group;
}

std::vector<reward::PartScore> Ask(const configs::RewardPartConfig& part,
                                   const std::vector<std::string>& completions) {
  return reward::MakeFunction(part, false)
      ->Score(Group(completions), After(std::chrono::seconds(20)));
}

// A Python with zmq: that of PATH, or the system's when an environment without it comes first
// there. Empty: none.
std::string ZmqPython() {
  for (const char* python : {"python3", "/usr/bin/python3"}) {
    if (std::system((std::string(python) + " -c 'import zmq' > /dev/null 2>&1").c_str()) == 0)
      return python;
  }
  return "";
}

std::string Output(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char buffer[1000];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  ::pclose(pipe);
  return text;
}

TEST(RewardServe, AProcessScoresForOthersBehindKeys) {
  const TempFolder temp;
  for (const char* name : {"worker", "run", "stranger"})
    ASSERT_EQ(RunPlumb({"keys", "generate", temp / name}).code, 0);
  EXPECT_EQ(RunPlumb({"keys", "generate", temp / "run"}).code, 2)
      << "a key in use is not overwritten";
  struct stat info {};
  ASSERT_EQ(::stat((temp / "run.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  { std::ofstream(temp / "allowed") << std::ifstream(temp / "run.pub").rdbuf(); }
  Running server({kPlumb, "reward", "serve", kRecipe, "--bind", "tcp://127.0.0.1:*", "--key",
                  temp / "worker.key", "--allowed", temp / "allowed"});
  const size_t at = server.first_line().find("tcp://");
  ASSERT_NE(at, std::string::npos) << server.first_line();
  configs::RewardPartConfig part;
  part.name = "remote", part.kind = "zmq";
  part.endpoint = server.first_line().substr(at, server.first_line().find(',', at) - at);
  part.server_key = temp / "worker.pub", part.client_key = temp / "run.key";
  const auto scores = Ask(part, {"#### 4", "#### 5"});
  ASSERT_TRUE(scores[0].scored()) << scores[0].reason;
  EXPECT_GT(scores[0].value, scores[1].value);
  EXPECT_FALSE(scores[0].digest.empty());
  part.client_key = temp / "stranger.key", part.timeout_s = 0.5;
  const auto refused = Ask(part, {"4"});
  EXPECT_EQ(refused[0].failure, reward::Failure::kUnavailable);
  EXPECT_NE(refused[0].reason.find("does not accept our key"), std::string::npos)
      << refused[0].reason;
  if (!ZmqPython().empty()) {
    const std::string client =
        ZmqPython() + " " PLUMB_SOURCE_DIR "/examples/rewards/zmq_client.py " + part.endpoint +
        " --keys " + (temp / "worker.pub") + " " + (temp / "run.key") + " 2+2= 4 '#### 4' '#### 5'";
    const std::string said = Output(client);
    EXPECT_TRUE(Has(said, "\"score\"")) << said;
  }
  const int status = server.Stop();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// A reward model as a worker gives the numbers that it gives in process: of tokens that are sent
// along, and of text that it encodes itself.
TEST(RewardServe, ARewardModelIsServed) {
  const TempFolder temp;
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  const policy_model::ModelShape shape{.family = "llama",
                                       .layers = 2,
                                       .hidden = 32,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 8,
                                       .ffn = 48,
                                       .vocab = tokenizer->size(),
                                       .max_positions = 48,
                                       .tied = true,
                                       .bos_token = tokenizer->Find("<bos>"),
                                       .eos_tokens = {2}};
  policy_model::Weights policy(shape, Device::kCpu, DType::kFloat32);
  policy.Initialise(6, 0.3);
  policy_model::SaveModelDirectory(policy_model::ScalarHeadFrom(policy, 8), temp / "rm", "");
  RealFileSystem().WriteFileAtomic(temp / "rm/tokenizer.json", tokenizer->json());
  {
    std::ofstream(temp / "rm.toml") << "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nname = "
                                       "\"helpful\"\nkind = \"reward_model\"\npath = \""
                                    << (temp / "rm") << "\"\n";
  }
  Running server({kPlumb, "reward", "serve", temp / "rm.toml", "--bind", "tcp://127.0.0.1:*"});
  const size_t at = server.first_line().find("tcp://");
  ASSERT_NE(at, std::string::npos) << server.first_line();

  configs::RewardPartConfig remote, local;
  remote.name = local.name = "helpful", remote.kind = "zmq", local.kind = "reward_model",
  local.path = temp / "rm";
  remote.endpoint = server.first_line().substr(at, server.first_line().find(',', at) - at);
  remote.args = {"tokens=1"};
  TrajectoryGroup group = Group({"4", "17", "2+2"});
  // not what the worker would encode: they begin with a token more
  for (Trajectory& t : group.trajectories) {
    t.tokens = tokenizer->Encode(group.lease.prompt.text + t.completion);
    t.tokens.insert(t.tokens.begin(), 5);
  }
  reward::HostOptions host = reward::WithModelParts(*tokenizer);
  const auto score = [&](const configs::RewardPartConfig& part) {
    return reward::MakeFunction(part, false, host)->Score(group, After(std::chrono::seconds(20)));
  };
  auto here = score(local), there = score(remote);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(there[i].scored()) << there[i].reason;
    EXPECT_EQ(static_cast<float>(there[i].value), static_cast<float>(here[i].value)) << i;
    EXPECT_EQ(there[i].digest, reward::MakeFunction(local, false, host)->digest());
  }
  EXPECT_NE(here[0].value, here[1].value);

  remote.args = {};
  there = score(remote);
  for (Trajectory& t : group.trajectories)
    t.tokens = tokenizer->Encode("<bos>" + group.lease.prompt.text + t.completion);
  here = score(local);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(there[i].scored()) << there[i].reason;
    EXPECT_EQ(static_cast<float>(there[i].value), static_cast<float>(here[i].value)) << i;
  }

  remote.args = {"tokens=1"};
  host.vocabulary = "sha256:another";
  there = score(remote);
  EXPECT_EQ(there[0].failure, reward::Failure::kBadReply);
  EXPECT_TRUE(Has(there[0].reason, "another vocabulary")) << there[0].reason;
  remote.args = {"token=1"};
  EXPECT_THROW(score(remote), Error);
}

TEST(RewardServe, WhatCannotBeServedIsSaid) {
  const TempFolder temp;
  EXPECT_EQ(RunPlumb({"reward", "serve", kRecipe, "--bind", "tcp://0.0.0.0:5555"}).code, 9)
      << "beyond the loopback without keys";
  EXPECT_EQ(RunPlumb({"reward", "serve", kRecipe, "--bind", temp / "s", "--key", "x"}).code, 2);
  const auto missing =
      RunPlumb({"reward", "serve", kRecipe, "--bind", "ipc://" + (temp / "s"), "--part", "nope"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(Has(missing.err, "its parts:")) << missing.err;
}

TEST(RewardExamples, ZeroMqWorkerInPython) {
  if (ZmqPython().empty())
    GTEST_SKIP() << "NOT TESTED: python3 has no zmq (Debian: python3-zmq), the Python worker is "
                    "not shown to work";
  const TempFolder temp;
  Running worker({ZmqPython(), PLUMB_SOURCE_DIR "/examples/rewards/zmq_worker.py", temp.Ipc("s")});
  ASSERT_EQ(worker.first_line(), "ready\n");
  configs::RewardPartConfig part;
  part.name = "numbers", part.kind = "zmq", part.endpoint = temp.Ipc("s");
  const auto scores = Ask(part, {"it is 4", "it is 5", "no"});
  ASSERT_TRUE(scores[0].scored()) << scores[0].reason;
  EXPECT_EQ(scores[0].value, 1);
  EXPECT_EQ(scores[1].value, 0.1);
  EXPECT_EQ(scores[2].value, 0);
}

TEST(RewardExamples, ZeroMqWorkerInPythonBehindKeys) {
  if (ZmqPython().empty())
    GTEST_SKIP() << "NOT TESTED: python3 has no zmq (Debian: python3-zmq), the Python worker is "
                    "not shown to work";
  const TempFolder temp;
  for (const char* name : {"worker", "run", "stranger"})
    ASSERT_EQ(RunPlumb({"keys", "generate", temp / name}).code, 0);
  { std::ofstream(temp / "allowed") << std::ifstream(temp / "run.pub").rdbuf(); }
  Running worker({ZmqPython(), PLUMB_SOURCE_DIR "/examples/rewards/zmq_worker.py", temp.Ipc("s"),
                  temp / "worker.key", temp / "allowed"});
  ASSERT_EQ(worker.first_line(), "ready\n");
  configs::RewardPartConfig part;
  part.name = "numbers", part.kind = "zmq", part.endpoint = temp.Ipc("s");
  part.server_key = temp / "worker.pub", part.client_key = temp / "run.key";
  EXPECT_EQ(Ask(part, {"it is 4"})[0].value, 1);
  part.client_key = temp / "stranger.key", part.timeout_s = 0.5;
  EXPECT_FALSE(Ask(part, {"it is 4"})[0].scored());
}

TEST(RewardExamples, HttpServerInPython) {
  if (std::system("python3 -c 'import http.server' > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "NOT TESTED: python3 is not here";
  Running server({"python3", PLUMB_SOURCE_DIR "/examples/rewards/http_server.py", "0"});
  ASSERT_EQ(server.first_line().rfind("http://", 0), 0u) << server.first_line();
  const std::string url = server.first_line().substr(0, server.first_line().size() - 1);
  configs::RewardPartConfig part;
  part.name = "numbers", part.kind = "http", part.api = configs::HttpApi::kOpenRlhf,
  part.endpoint = url + "/get_reward";
  auto scores = Ask(part, {"it is 4", "it is 5", "no"});
  ASSERT_TRUE(scores[0].scored()) << scores[0].reason;
  EXPECT_EQ(scores[0].value, 1);
  EXPECT_EQ(scores[1].value, 0.1);
  EXPECT_EQ(scores[2].value, 0);
  EXPECT_EQ(scores[2].details.back().first, "words");
  part.api = configs::HttpApi::kSlime, part.endpoint = url + "/rm", part.workers = 2;
  scores = Ask(part, {"it is 4", "it is 5", "no"});
  ASSERT_TRUE(scores[0].scored()) << scores[0].reason;
  EXPECT_EQ(scores[0].value, 1);
  EXPECT_EQ(scores[1].value, 0.1);
}

}  // namespace
}  // namespace plumb::run
