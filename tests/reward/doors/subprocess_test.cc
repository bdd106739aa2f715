// Programs that speak JSON lines (reward/doors/subprocess.h, child_process.h).
#include "reward/doors/subprocess.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/sandbox/child_process.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

bool HavePython() { return std::system("python3 -c 'import json' > /dev/null 2>&1") == 0; }

configs::RewardConfig Config(const configs::RewardPartConfig& part) {
  configs::RewardConfig config;
  config.parts = {part};
  config.retries = 0;
  return config;
}

HostOptions Quick() {
  HostOptions options = TestHost();
  options.start_grace = std::chrono::milliseconds(0);
  return options;
}

TEST(ProgramReply, StrictForms) {
  EXPECT_EQ(ParseProgramReply(R"({"id":7,"score":0.5})").score.value, 0.5);
  const auto both = ParseProgramReply("{\"id\":7,\"scores\":{\"a\":1,\"b\":0.25}}\r");
  EXPECT_EQ(both.id, 7u);
  EXPECT_EQ(both.score.value, 1.25);
  EXPECT_EQ(both.score.details.size(), 2u);
  EXPECT_TRUE(ParseProgramReply(R"({"id":1,"skip":true})").score.skipped);
  EXPECT_EQ(ParseProgramReply(R"({"id":1,"error":"no"})").score.failure, Failure::kReported);
  EXPECT_EQ(ParseProgramReply(R"({"id":1,"error":"2 for 3","kind":"wrong_count"})").score.failure,
            Failure::kWrongCount);
  // What Python's json.dumps writes for numbers that JSON does not have.
  for (const char* text : {R"({"id":1,"score":NaN})", R"({"id":1,"score":-Infinity})",
                           R"({"id":1,"scores":{"a":NaN}})"}) {
    EXPECT_EQ(ParseProgramReply(text).score.failure, Failure::kNotFinite) << text;
  }
  for (const char* bad :
       {"", "hello", "[1]", "3", R"({"score":1})", R"({"id":-1,"score":1})", R"({"id":1})",
        R"({"id":1,"score":"1"})", R"({"id":1,"score":1e999})", R"({"id":1,"scores":{}})",
        R"({"id":1,"score":1)", R"({"id":1,"scores":{"a":null}})"}) {
    EXPECT_THROW(ParseProgramReply(bad), Error) << bad;
    try {  // a number alone is what people print first
      ParseProgramReply("1.0");
      ADD_FAILURE() << "taken";
    } catch (const Error& e) {
      EXPECT_NE(e.message().find("a reply is a line {\"id\": 7, \"score\": 0.5}"),
                std::string::npos)
          << e.message();
    }
  }
  std::string deep(100000, '[');
  EXPECT_THROW(ParseProgramReply(deep), Error);
}

TEST(ProgramRequest, IsOneLineOfJson) {
  auto group = TestGroup({"line one\nline \"two\" \xff"}, "4", R"({"unit":"km"})");
  const std::string line = ProgramRequest(group, 0, 9);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(line.rfind("{\"id\":9,\"prompt\":\"What is it?\",\"completion\":\"line one\\nline", 0),
            0u)
      << line;
  EXPECT_NE(line.find(R"("ground_truth":"4","sample":0,"of":1,"extra":{"unit":"km"}})"),
            std::string::npos)
      << line;
  group.lease.prompt.text.clear();
  group.lease.prompt.messages = {{"user", "hi"}};
  group.lease.prompt.messages.push_back(
      {"assistant", "", R"({"content":null,"tool_calls":[{"id":"1"}]})"});
  const std::string all =
      R"([{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}])";
  EXPECT_NE(ProgramRequest(group, 0, 9).find("\"prompt\":" + all), std::string::npos);
  EXPECT_EQ(PromptText(group.lease.prompt), all);
  group.lease.prompt.messages.pop_back();
  group.lease.prompt.extra_json = "not json";
  EXPECT_NE(ProgramRequest(group, 0, 9).find(R"("prompt":[{"role":"user","content":"hi"}])"),
            std::string::npos);
  EXPECT_NE(ProgramRequest(group, 0, 9).find(R"("extra":{}})"), std::string::npos);
}

TEST(ProgramExamples, Shell) {
  GroupScorer scorer(
      Config(TestPart("program", PLUMB_SOURCE_DIR "/examples/rewards/polite_reward.sh")),
      TestHost());
  TrajectoryGroup group = TestGroup({"please do", "do it", "Thank you"});
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 1);
    EXPECT_EQ(group.trajectories[1].reward, 0);
    EXPECT_EQ(group.trajectories[2].reward, 1);
  }
}

TEST(ProgramExamples, Python) {
  if (!HavePython())
    GTEST_SKIP() << "NOT TESTED: python3 is not here, rewards in Python are not shown to work";
  GroupScorer scorer(
      Config(TestPart("program", "python3", {PLUMB_SOURCE_DIR "/examples/rewards/unit_reward.py"})),
      TestHost());
  TrajectoryGroup group =
      TestGroup({"it is 12 km.", "it is 12 miles", "no idea"}, "12", R"({"unit":"km"})");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 1);
  EXPECT_EQ(group.trajectories[1].reward, 0.5);
  EXPECT_EQ(group.trajectories[2].reward, 0);
  ASSERT_EQ(group.trajectories[0].rewards.size(), 3u);
  EXPECT_EQ(group.trajectories[1].rewards[2].name, "code.unit");
  EXPECT_EQ(group.trajectories[1].rewards[2].weight, 0);
  TrajectoryGroup skipped = TestGroup({"x"}, "12");
  EXPECT_EQ(scorer.ScoreGroup(skipped), Outcome::kUnscored);
  EXPECT_NE(skipped.trajectories[0].unscored_reason.find("applies"), std::string::npos);
}

struct Hostile {
  const char* name;
  const char* script;
  const char* kind;
};
class HostileProgram : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileProgram, LeavesTheGroupUnscored) {
  Notices notices;
  auto part = TestPart("program", "sh", {"-c", GetParam().script});
  if (std::string(GetParam().kind) == "timeout") part.timeout_s = 1;
  GroupScorer scorer(Config(part), Quick());
  TrajectoryGroup group = TestGroup({"a"});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_LT(std::chrono::steady_clock::now() - start,
            std::chrono::milliseconds(static_cast<int64_t>(part.timeout_s * 1000) + 1500));
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/" + std::string(GetParam().kind)), 1u)
      << group.trajectories[0].unscored_reason;
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileProgram,
    ::testing::Values(
        Hostile{"exits", "exit 0", "exit"}, Hostile{"fails", "echo why >&2; exit 3", "exit"},
        Hostile{"killed", "kill -SEGV $$", "crash"}, Hostile{"hangs", "sleep 100", "timeout"},
        Hostile{"forks_and_hangs", "sleep 100 & sleep 100 & wait", "timeout"},
        Hostile{"closes_stdout", "read l; exec >&-; sleep 100", "timeout"},
        Hostile{"noise", "read l; echo loading model...; sleep 100", "bad_reply"},
        Hostile{"nan", "read l; echo '{\"id\":1,\"score\":NaN}'; sleep 100", "not_finite"},
        Hostile{"other_id", "read l; echo '{\"id\":99,\"score\":1}'; sleep 100", "wrong_count"},
        Hostile{"twice",
                "read l; printf '{\"id\":1,\"score\":1}\\n{\"id\":1,\"score\":1}\\n'; sleep 100",
                "wrong_count"},
        Hostile{"endless_line", "read l; exec tr '\\0' x < /dev/zero", "output_cap"},
        Hostile{"reported", "read l; echo '{\"id\":1,\"error\":\"no\"}'; sleep 100", "reported"}),
    [](const auto& info) { return info.param.name; });

TEST(ProgramStart, ClearErrors) {
  EXPECT_THROW(MakeProgram(TestPart("program", "/nonexistent/x"), false, TestHost()), Error);
  EXPECT_THROW(MakeProgram(TestPart("program", "no-such-program-anywhere"), false, TestHost()),
               Error);
  EXPECT_THROW(MakeProgram(TestPart("program", ""), false, TestHost()), Error);
  EXPECT_THROW(MakeProgram(TestPart("program", PLUMB_SOURCE_DIR "/examples/rewards/unit_reward.py"),
                           false, TestHost()),
               Error)
      << "not executable";
}

TEST(ChildProcess, KillEndsEveryDescendant) {
  const std::string mark = "31" + std::to_string(getpid());
  const auto alive = [&] {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::ifstream file(entry.path() / "cmdline");
      std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      if (line == std::string("sleep\0", 6) + mark + std::string("\0", 1)) ++count;
    }
    return count;
  };
  SandboxOptions sandbox;
  std::vector<std::string> command = NamespaceCommand(sandbox);
  // A descendant in a session of its own escapes a process group, not a pid namespace.
  const std::vector<std::string> shell = {
      "sh", "-c", "setsid sleep " + mark + " & sleep " + mark + " & echo ok; wait"};
  command.insert(command.end(), shell.begin(), shell.end());
  ChildProcess child({.command = command});
  child.Start();
  std::string line;
  ASSERT_EQ(child.ReadLine(100, &line, After(std::chrono::seconds(5))), Failure::kNone);
  EXPECT_EQ(line, "ok");
  for (int i = 0; i < 100 && alive() < 2; ++i) usleep(10000);
  EXPECT_EQ(alive(), 2);
  child.Kill();
  for (int i = 0; i < 200 && alive() > 0; ++i) usleep(10000);
  EXPECT_EQ(alive(), 0);
}

TEST(ChildProcess, HidesTheUsersEnvironment) {
  setenv("PLUMB_TEST_SECRET_TOKEN", "x", 1);
  ChildProcess child({.command = {"sh", "-c", "echo \"[$PLUMB_TEST_SECRET_TOKEN]\""}});
  child.Start();
  std::string line;
  ASSERT_EQ(child.ReadLine(100, &line, After(std::chrono::seconds(5))), Failure::kNone);
  EXPECT_EQ(line, "[]");
}

}  // namespace
}  // namespace plumb::reward
