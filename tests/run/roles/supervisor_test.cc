#include "run/roles/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/ranks/rank_mesh.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using namespace std::chrono_literals;

RoleProcess Shell(const std::string& name, const std::string& script, const std::string& again,
                  bool decides = false) {
  return {.name = name, .arguments = {"-c", script}, .again = {"-c", again}, .decides = decides};
}

std::string Read(const std::string& path) {
  return RealFileSystem().Exists(path) ? RealFileSystem().ReadFile(path, 1 << 20) : "";
}

const std::atomic<bool> kGoOn{false};

TEST(SupervisorTest, EndsWithTheDecidingRoleAndStopsTheOthers) {
  const TempFolder folder;
  const std::string ended = folder / "ended";
  // The actor would run for a minute; it ends because the learner did, and by SIGTERM, so that it
  // can tidy up.
  Supervisor supervisor(
      "/bin/sh",
      {Shell("actor-0",
             "trap 'echo tidy > " + ended + "; exit 0' TERM; touch " + folder / "ready" +
                 "; while :; do sleep 0.05; done",
             ":"),
       Shell("learner", "while [ ! -e " + folder / "ready" + " ]; do sleep 0.02; done; exit 0", ":",
             true)},
      folder / "pids.json");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(supervisor.Run(kGoOn), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 9s);
  EXPECT_EQ(Read(ended), "tidy\n");
  EXPECT_EQ(supervisor.restarts(), 0);
  const auto pids = nlohmann::json::parse(Read(folder / "pids.json"));
  EXPECT_EQ(pids.size(), 2u);
  EXPECT_NE(kill(pids["actor-0"].get<pid_t>(), 0), 0) << "the actor's process is still there";
}

// The first wish is passed to the deciding role, the second too; then the others get no ten
// seconds.
TEST(SupervisorTest, TheSecondWishToStopIsPassedOnAndCutsThePatience) {
  const TempFolder folder;
  Supervisor supervisor(
      "/bin/sh",
      {Shell("actor-0", "trap '' TERM; touch " + folder / "deaf" + "; while :; do sleep 0.05; done",
             ":"),
       Shell("learner",
             "n=0; trap 'n=$((n+1)); echo $n > " + folder / "asked" + "' TERM; touch " +
                 folder / "ready" + "; while [ $n -lt 2 ]; do sleep 0.02; done; exit 7",
             ":", true)},
      folder / "pids.json");
  std::atomic<bool> stop{false}, at_once{false};
  std::thread person([&] {
    while (!RealFileSystem().Exists(folder / "ready") || !RealFileSystem().Exists(folder / "deaf"))
      std::this_thread::sleep_for(5ms);
    stop = true;
    while (Read(folder / "asked") != "1\n") std::this_thread::sleep_for(5ms);
    at_once = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(supervisor.Run(stop, &at_once), 7);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s);
  person.join();
}

TEST(SupervisorTest, AKilledChildIsStartedAgainWithItsOtherArguments) {
  const TempFolder folder;
  Supervisor supervisor(
      "/bin/sh",
      {Shell("actor-0", "kill -9 $$", "echo again > " + folder / "again" + "; sleep 60"),
       Shell("learner", "while [ ! -s " + folder / "again" + " ]; do sleep 0.02; done", ":", true)},
      folder / "pids.json");
  EXPECT_EQ(supervisor.Run(kGoOn), 0);
  EXPECT_EQ(Read(folder / "again"), "again\n");
  EXPECT_EQ(supervisor.restarts(), 1);
}

TEST(SupervisorTest, AKilledDecidingRoleIsStartedAgainToo) {
  const TempFolder folder;
  Supervisor supervisor("/bin/sh", {Shell("learner", "kill -SEGV $$", "exit 0", true)},
                        folder / "pids.json");
  EXPECT_EQ(supervisor.Run(kGoOn), 0);
  EXPECT_EQ(supervisor.restarts(), 1);
}

TEST(SupervisorTest, AnErrorOfARoleEndsTheRunWithItsCode) {
  const TempFolder folder;
  Supervisor supervisor("/bin/sh",
                        {Shell("reward-0", "exit 4", ":"), Shell("learner", "sleep 60", ":", true)},
                        folder / "pids.json");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(supervisor.Run(kGoOn), 4) << "the same input would fail again: no restart";
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 9s);
  EXPECT_EQ(supervisor.restarts(), 0);
}

TEST(SupervisorTest, GivesUpOnARoleThatIsKilledAgainAndAgain) {
  const TempFolder folder;
  Supervisor supervisor(
      "/bin/sh",
      {Shell("actor-0", "kill -9 $$", "kill -9 $$"), Shell("learner", "sleep 60", ":", true)},
      folder / "pids.json");
  try {
    supervisor.Run(kGoOn);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(e.where(), "actor-0");
    EXPECT_NE(e.message().find("signal 9"), std::string::npos) << e.message();
  }
  EXPECT_EQ(supervisor.restarts(), kMaxRestarts);
  EXPECT_NE(kill(nlohmann::json::parse(Read(folder / "pids.json"))["learner"].get<pid_t>(), 0), 0);
}

TEST(SupervisorTest, StopAsksTheDecidingRoleAndWaitsForIt) {
  const TempFolder folder;
  std::atomic<bool> stop{false};
  Supervisor supervisor(
      "/bin/sh",
      {Shell("learner",
             "trap 'sleep 0.2; echo saved > " + folder / "saved" + "; exit 7' TERM; touch " +
                 folder / "ready" + "; while :; do sleep 0.05; done",
             ":", true)},
      folder / "pids.json");
  std::thread stopper([&] {
    while (!RealFileSystem().Exists(folder / "ready")) std::this_thread::sleep_for(5ms);
    stop.store(true);
  });
  const int code = supervisor.Run(stop);
  stopper.join();
  EXPECT_EQ(code, 7) << "its own exit code: fewer steps than asked";
  EXPECT_EQ(Read(folder / "saved"), "saved\n");
  EXPECT_FALSE(supervisor.stopped_before_it_began()) << "it has spoken for itself";
}

TEST(SupervisorTest, SaysThatTheDecidingRoleWasStoppedBeforeItCaughtSignals) {
  const TempFolder folder;
  const std::atomic<bool> stop{true};
  Supervisor supervisor("/bin/sh",
                        {Shell("replay", "sleep 60", ":"), Shell("learner", "sleep 60", ":", true)},
                        folder / "pids.json");
  EXPECT_EQ(supervisor.Run(stop), 7);
  EXPECT_TRUE(supervisor.stopped_before_it_began());
}

TEST(SupervisorTest, ChildrenDieWithTheSupervisor) {
  const TempFolder folder;
  const pid_t parent = fork();
  if (parent == 0) {
    Supervisor supervisor("/bin/sh",
                          {Shell("learner", "touch " + folder / "ready" + "; sleep 60", ":", true)},
                          folder / "pids.json");
    supervisor.Run(kGoOn);
    _exit(0);
  }
  // The child may be quicker than the file that names it.
  while (!RealFileSystem().Exists(folder / "ready") || Read(folder / "pids.json").empty())
    std::this_thread::sleep_for(5ms);
  const auto child = nlohmann::json::parse(Read(folder / "pids.json"))["learner"].get<pid_t>();
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  // It is nobody's child now; gone, or a zombie that init has not reaped yet.
  bool ended = false;
  for (int i = 0; i < 400 && !ended; ++i, std::this_thread::sleep_for(10ms)) {
    const std::string stat = Read("/proc/" + std::to_string(child) + "/stat");
    ended = stat.empty() || stat.find(") Z ") != std::string::npos;
  }
  EXPECT_TRUE(ended);
}

RoleProcess Rank(const std::string& name, const std::string& script, const std::string& again,
                 bool decides = false) {
  RoleProcess out = Shell(name, script, again, decides);
  out.group = "learner";
  out.lost_code = 11;
  return out;
}

// A rank is killed; the other notices, saves and ends with the code that says so; both are started
// again, the actor is not.
TEST(SupervisorTest, RanksThatLoseOneAreStartedAgainTogether) {
  for (const bool first_is_killed : {true, false}) {
    const TempFolder folder;
    const std::string dies = "while [ ! -e " + folder / "up" + " ]; do sleep 0.02; done; touch " +
                             folder / "dead" + "; kill -9 $$";
    const std::string notices = "touch " + folder / "up" + "; while [ ! -e " + folder / "dead" +
                                " ]; do sleep 0.02; done; sleep 0.2; echo saved >> " +
                                folder / "saved" + "; exit 11";
    const std::string again = "echo $$ >> " + folder / "again" + "; exit 0";
    const std::string last = again.substr(0, again.find(';')) + "; while [ $(wc -l < " +
                             folder / "again" + ") -lt 2 ]; do sleep 0.02; done; exit 0";
    Supervisor supervisor("/bin/sh",
                          {Shell("actor-0", "echo x >> " + folder / "actors" + "; sleep 60", ":"),
                           Rank("learner", first_is_killed ? dies : notices, last, true),
                           Rank("learner-1", first_is_killed ? notices : dies, again)},
                          folder / "pids.json");
    EXPECT_EQ(supervisor.Run(kGoOn), 0);
    EXPECT_EQ(supervisor.restarts(), 1);
    EXPECT_EQ(Read(folder / "saved"), "saved\n");
    EXPECT_EQ(Read(folder / "actors"), "x\n");
  }
}

// A rank that failed by itself would fail again: its code is the run's, whoever is seen first.
TEST(SupervisorTest, ARankThatFailsByItselfEndsTheRun) {
  for (const bool first_fails : {true, false}) {
    const TempFolder folder;
    const std::string fails = "echo x >> " + folder / "runs" + "; exit 5";
    const std::string loses =
        "while [ ! -e " + folder / "runs" + " ]; do sleep 0.02; done; exit 11";
    Supervisor supervisor("/bin/sh",
                          {Rank("learner", first_fails ? fails : loses, ":", true),
                           Rank("learner-1", first_fails ? loses : fails, ":")},
                          folder / "pids.json");
    EXPECT_EQ(supervisor.Run(kGoOn), 5);
    EXPECT_EQ(supervisor.restarts(), 0);
    EXPECT_EQ(Read(folder / "runs"), "x\n");
  }
}

// The first rank is stopped before it caught signals, the second waits for it and has nothing to
// save.
TEST(SupervisorTest, AStopGivesTheRanksThatAreLeftNoHalfMinute) {
  for (const char* left : {"sleep 60", "trap '' TERM; while :; do sleep 0.05; done"}) {
    const TempFolder folder;
    const std::atomic<bool> stop{true};
    Supervisor supervisor("/bin/sh",
                          {Rank("learner", "sleep 60", ":", true), Rank("learner-1", left, ":")},
                          folder / "pids.json");
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(supervisor.Run(stop), 7);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s) << left;
    EXPECT_TRUE(supervisor.stopped_before_it_began());
  }
}

// The stop comes while the rank that is left is given its time.
TEST(SupervisorTest, AStopAfterALossIsPassedOn) {
  const TempFolder folder;
  std::atomic<bool> stop{false};
  const std::string saves = "trap 'echo saved > " + folder / "saved" + "; exit 7' TERM; touch " +
                            folder / "up" + "; while :; do sleep 0.02; done";
  const std::string dies = "while [ ! -e " + folder / "up" + " ]; do sleep 0.02; done; touch " +
                           folder / "dead" + "; kill -9 $$";
  Supervisor supervisor("/bin/sh",
                        {Rank("learner", saves, ":", true), Rank("learner-1", dies, ":")},
                        folder / "pids.json");
  std::thread person([&] {
    while (!RealFileSystem().Exists(folder / "dead")) std::this_thread::sleep_for(5ms);
    std::this_thread::sleep_for(300ms);
    stop = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(supervisor.Run(stop), 7);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s);
  person.join();
  EXPECT_EQ(Read(folder / "saved"), "saved\n");
}

TEST(SupervisorTest, ARankThatIsLostAgainAndAgainEndsTheRunAsLost) {
  const TempFolder folder;
  Supervisor supervisor(
      "/bin/sh",
      {Rank("learner", "exit 11", "exit 11", true), Rank("learner-1", "sleep 0.01", "exit 11")},
      folder / "pids.json");
  EXPECT_THROW(supervisor.Run(kGoOn), learner::RankLost) << "exit code 11";
}

}  // namespace
}  // namespace plumb::run
