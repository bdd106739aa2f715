// Shared objects behind the walls (reward/doors/plugin.h, plugin_host.h, plugin_host_main.cc,
// plugin_wire.h, reward_abi.h): each way to misbehave ends as "unscored, with a reason" within the
// deadline, and the scorer lives on.
#include "reward/doors/plugin.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "reward/doors/plugin_host.h"
#include "reward/doors/plugin_wire.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

using Clock = std::chrono::steady_clock;

configs::RewardConfig Config(const configs::RewardPartConfig& part, int64_t retries = 0) {
  configs::RewardConfig config;
  config.parts = {part};
  config.retries = retries;
  return config;
}

struct Hostile {
  const char* name;
  const char* kind;    // failure name
  const char* reason;  // part of the reason
};

class HostilePlugin : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostilePlugin, LeavesTheGroupUnscoredAndTheScorerAlive) {
  const Hostile& c = GetParam();
  if (std::string(c.name) == "memory" && !kMemoryLimited)
    GTEST_SKIP() << "NOT TESTED: no memory limit under a sanitizer";
  Notices notices;
  auto part = TestPart("plugin", PluginPath(c.name));
  if (std::string(c.kind) == "timeout") part.timeout_s = 1;
  GroupScorer scorer(Config(part), TestHost());
  TrajectoryGroup group = TestGroup({"bad one", "bad two"});
  const auto start = Clock::now();
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_LT(Clock::now() - start,
            std::chrono::milliseconds(static_cast<int64_t>(part.timeout_s * 1000) + 1500));
  for (const Trajectory& t : group.trajectories) {
    // What is wrong with the first answer's result alone leaves the second its score.
    const bool first_alone =
        std::set<std::string>{"nan", "inf", "unwritten", "status", "reported"}.contains(c.name);
    const bool scored = first_alone && &t != &group.trajectories.front();
    EXPECT_EQ(t.scored, scored);
    EXPECT_EQ(t.reward, scored ? 0.25 : 0);
    EXPECT_TRUE(scored || t.unscored_reason.find(c.reason) != std::string::npos)
        << t.unscored_reason;
  }
  const auto counters = scorer.Counters();
  EXPECT_GE(counters.count("reward/failed/code/" + std::string(c.kind)), 1u) << notices.text();
  // The next group is served, by a new process if need be.
  TrajectoryGroup next = TestGroup({"good", "good"});
  EXPECT_EQ(scorer.ScoreGroup(next), Outcome::kScored);
  EXPECT_EQ(next.trajectories[1].reward, 0.25);
}

INSTANTIATE_TEST_SUITE_P(All, HostilePlugin,
                         ::testing::Values(Hostile{"segv", "crash", "signal 11"},
                                           Hostile{"abort", "crash", "signal 6"},
                                           Hostile{"loop", "timeout", "deadline"},
                                           Hostile{"exit", "exit", "exit code 0"},
                                           Hostile{"nan", "not_finite", "NaN"},
                                           Hostile{"inf", "not_finite", "infinity"},
                                           Hostile{"unwritten", "not_finite", "unwritten"},
                                           Hostile{"count", "wrong_count", "3 scores for 2"},
                                           Hostile{"negative", "reported", "error -7"},
                                           Hostile{"status", "bad_reply", "status 42"},
                                           Hostile{"reported", "reported", "cannot read this"},
                                           Hostile{"memory", "crash", "signal 6"},
                                           Hostile{"flood", "timeout", "deadline"}),
                         [](const auto& info) { return info.param.name; });

double ScoreWith(const char* name, HostOptions options, const std::string& truth = "") {
  Notices quiet;
  GroupScorer scorer(Config(TestPart("plugin", PluginPath(name))), options);
  TrajectoryGroup group = TestGroup({"bad", "bad"}, truth);
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  return group.trajectories[0].reward;
}

TEST(PluginWalls, PrintingNeitherForgesNorBreaksAReply) {
  EXPECT_EQ(ScoreWith("print", TestHost()), 0.25);
}

// Each layer: stopped with it, not stopped without it.
TEST(PluginWalls, SeccompStopsForkAndSockets) {
  EXPECT_EQ(ScoreWith("fork", TestHost()), 0.5);
  EXPECT_EQ(ScoreWith("connect", TestHost()), 0.5);
  HostOptions off = TestHost();
  off.sandbox.seccomp = false;
  EXPECT_EQ(ScoreWith("fork", off), 1);
  EXPECT_EQ(ScoreWith("connect", off), 1);
}

TEST(PluginWalls, NamespacesHideTheNetworkAndTheFiles) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 4), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string port = std::to_string(ntohs(address.sin_port));
  const std::string file =
      std::filesystem::temp_directory_path() / ("plumb_write_" + std::to_string(getpid()));
  HostOptions on = TestHost();
  on.sandbox.seccomp = false;  // so that only the namespaces stand in the way
  EXPECT_EQ(ScoreWith("network", on, port), 0.5);
  ScoreWith("write", on, file);  // succeeds in its private /tmp at best
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_EQ(ScoreWith("write", on, "/etc/plumb_written_by_plugin"), 0.5);
  const std::string built = std::string(PLUMB_BINARY_DIR) + "/written_by_plugin";
  ScoreWith("write", on, built);
  EXPECT_FALSE(std::filesystem::exists(built));
  HostOptions off = on;
  off.sandbox.namespaces = false;
  EXPECT_EQ(ScoreWith("network", off, port), 1);
  EXPECT_EQ(ScoreWith("write", off, file), 1);
  EXPECT_TRUE(std::filesystem::exists(file));
  std::filesystem::remove(file);
  close(listener);
}

TEST(PluginStart, RefusesBeforeTheRunBegins) {
  struct Case {
    const char* path;
    const char* says;
  };
  HostOptions options = TestHost();
  options.start_grace = std::chrono::milliseconds(500);
  for (const Case& c :
       {Case{"other_abi", "version 99"}, Case{"no_score", "plumb_reward_score"},
        Case{"no_version", "plumb_reward_abi_version"}, Case{"slow_open", "did not greet"},
        Case{"absent", "no such shared object"}}) {
    try {
      MakePlugin(TestPart("plugin", PluginPath(c.path)), false, options);
      ADD_FAILURE() << c.path;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(MakePlugin(TestPart("plugin", "/etc/hostname"), false, options), Error);
  auto bad = TestPart("plugin", PluginPath("segv"));
  bad.timeout_s = 0;
  EXPECT_THROW(MakePlugin(bad, false, options), Error);
}

TEST(PluginExamples, CAndCpp) {
  GroupScorer keywords(Config(TestPart("plugin", PluginPath("keyword_reward"))), TestHost());
  TrajectoryGroup group = TestGroup({"red green", "red", "none"}, "red green");
  EXPECT_EQ(keywords.ScoreGroup(group), Outcome::kScored);
  EXPECT_EQ(group.trajectories[0].reward, 1);
  EXPECT_EQ(group.trajectories[1].reward, 0.5);
  EXPECT_EQ(group.trajectories[2].reward, 0);
  EXPECT_EQ(group.trajectories[0].rewards[0].function_digest.substr(0, 7), "sha256:");

  GroupScorer brevity(Config(TestPart("plugin", PluginPath("brevity_reward"), {"limit=2"})),
                      TestHost());
  TrajectoryGroup words = TestGroup({"a b", "a b c d"});
  EXPECT_EQ(brevity.ScoreGroup(words), Outcome::kScored);
  EXPECT_EQ(words.trajectories[0].reward, 1);
  EXPECT_EQ(words.trajectories[1].reward, 0.5);
  EXPECT_THROW(GroupScorer(Config(TestPart("plugin", PluginPath("brevity_reward"), {"limit=0"})),
                           TestHost()),
               Error);
}

TEST(PluginPolicy, QuarantineThenDisabled) {
  Notices notices;
  // three attempts
  GroupScorer scorer(Config(TestPart("plugin", PluginPath("segv")), 2), TestHost());
  TrajectoryGroup group = TestGroup({"bad"});
  scorer.ScoreGroup(group);
  EXPECT_EQ(scorer.Counters().at("reward/failed/code/crash"), 3u);
  EXPECT_EQ(scorer.Counters().at("reward/retries"), 2u);
  scorer.ScoreGroup(group);  // the same input: not tried again
  EXPECT_EQ(scorer.Counters().at("reward/failed/code/crash"), 3u);
  EXPECT_EQ(scorer.Counters().at("reward/failed/code/quarantined"), 1u);
  TrajectoryGroup good = TestGroup({"good"});
  EXPECT_EQ(scorer.ScoreGroup(good), Outcome::kScored);
  TrajectoryGroup other = TestGroup({"bad in another way"});
  EXPECT_THROW(scorer.ScoreGroup(other), FunctionDisabled);  // the fifth within a minute
  EXPECT_THROW(scorer.ScoreGroup(good), FunctionDisabled);
  EXPECT_NE(notices.text().find("disabled"), std::string::npos);
}

TEST(PluginPolicy, StallsAreNamed) {
  Notices notices;
  HostOptions options = TestHost();
  options.pool.stall_after = std::chrono::milliseconds(300);
  auto part = TestPart("plugin", PluginPath("loop"));
  part.timeout_s = 1;
  GroupScorer scorer(Config(part), options);
  TrajectoryGroup group = TestGroup({"bad"});
  scorer.ScoreGroup(group);
  EXPECT_NE(notices.text().find("waiting for group 1841 on reward 'code' at worker 0 for"),
            std::string::npos)
      << notices.text();
}

TEST(PluginPolicy, ExceptionsAreReasonsAndTheHostLives) {
  Notices notices;
  GroupScorer scorer(Config(TestPart("plugin", PluginPath("throws"))), TestHost());
  for (auto [what, kind, says] : {std::tuple{"memory", "memory", "ran out of memory"},
                                  std::tuple{"runtime", "reported", "threw: on purpose"},
                                  std::tuple{"int", "reported", "no std::exception"}}) {
    if (std::string(what) == "memory" && !kMemoryLimited)
      what = "int", kind = "reported", says = "no std::exception";
    TrajectoryGroup group = TestGroup({"a"}, what);
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    EXPECT_NE(group.trajectories[0].unscored_reason.find(says), std::string::npos)
        << group.trajectories[0].unscored_reason;
    EXPECT_GE(scorer.Counters().count(std::string("reward/failed/code/") + kind), 1u);
  }
  TrajectoryGroup calls = TestGroup({"a"}, "count");  // counts its calls: still the first process
  EXPECT_EQ(scorer.ScoreGroup(calls), Outcome::kScored);
  EXPECT_EQ(calls.trajectories[0].reward, 4);
}

TEST(PluginWire, RefusesLyingLengths) {
  FrameType type;
  uint64_t size;
  std::string frame = Frame(FrameType::kScores, "abc");
  EXPECT_TRUE(ReadHeader(frame.substr(0, kFrameHeader), 3, &type, &size));
  EXPECT_FALSE(ReadHeader(frame.substr(0, kFrameHeader), 2, &type, &size));
  frame[0] = 'X';
  EXPECT_FALSE(ReadHeader(frame.substr(0, kFrameHeader), 3, &type, &size));
  std::string body;
  Put<uint64_t>(&body, ~uint64_t{0});
  Cursor in(body);
  EXPECT_EQ(in.String(), "");
  EXPECT_FALSE(in.ok());
}

}  // namespace
}  // namespace plumb::reward
