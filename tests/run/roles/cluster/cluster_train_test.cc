// Whole runs of a head and roles that join it over tcp on the loopback: equal bit for bit to a run
// in one process, whoever comes, goes, is killed or is not let in.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/head.h"
#include "run/roles/cluster/member.h"
#include "run/roles/cluster/model_digest.h"
#include "run/roles/cluster/reception.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using std::chrono::seconds;

class ClusterTrain : public ::testing::Test {
 protected:
  ~ClusterTrain() override {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }
  pid_t Start(const std::vector<std::string>& line, const std::string& name) {
    const pid_t child = StartProgram(line, temp_ / name);
    PLUMB_CHECK(child > 0, "cannot start a program");
    children_.push_back(child);
    return child;
  }
  // The exit code; 128 and the signal of one that was killed, -1 of one that does not end.
  int End(pid_t child, seconds patience = seconds(100)) {
    const auto until = std::chrono::steady_clock::now() + patience;
    int status = 0;
    while (waitpid(child, &status, WNOHANG) != child) {
      if (std::chrono::steady_clock::now() > until) return -1;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::erase(children_, child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string Said(const std::string& name) const {
    const std::string file = temp_ / (name + ".out");
    return RealFileSystem().Exists(file) ? Read(file) : "";
  }

  pid_t Head(const std::string& run, int64_t steps, std::vector<std::string> more = {},
             const std::string& port = "*") {
    more.insert(more.end(), {"--quiet", "--set", "run.roles=cluster", "--set",
                             "run.listen=tcp://127.0.0.1:" + port});
    return Start(TrainLine(temp_ / run, steps, more), run);
  }
  // A free port with four free ones behind it, that no program beside this one is given by the
  // system while nobody holds it: from below those that the system gives away.
  static std::string LastingPort() {
    const auto free = [](int port) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in to = {.sin_family = AF_INET,
                              .sin_port = htons(static_cast<uint16_t>(port)),
                              .sin_addr = {htonl(INADDR_LOOPBACK)},
                              .sin_zero = {}};
      const bool ok = bind(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
      close(fd);
      return ok;
    };
    for (int port = 12000 + getpid() % 2000 * 5; port < 32000; port += 5) {
      if (free(port) && free(port + 1) && free(port + 2) && free(port + 3) && free(port + 4))
        return std::to_string(port);
    }
    throw Error(ErrorCode::kUnavailable, "no five free ports below 32000");
  }
  // Where the run's head listens, once it does; "": it did not within a minute.
  std::string Listens(const std::string& run, const std::string& not_at = "") {
    const auto until = std::chrono::steady_clock::now() + seconds(60);
    while (std::chrono::steady_clock::now() < until) {
      const std::string file = temp_ / (run + "/" + kClusterFile);
      if (RealFileSystem().Exists(file)) {
        const std::string listen = nlohmann::json::parse(Read(file))["listen"];
        if (listen != not_at) return listen;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return "";
  }
  pid_t Role(const std::string& kind, const std::string& name, const std::string& join,
             const std::vector<std::string>& more = {}) {
    std::vector<std::string> line = {"role", kind,     "--join",       join,    "--name",
                                     name,   "--work", temp_ / "work", "--set", "run.threads=1"};
    line.insert(line.end(), more.begin(), more.end());
    return Start(line, name);
  }
  int64_t Steps(const std::string& run) const {
    const std::string file = temp_ / (run + "/metrics.jsonl");
    if (!RealFileSystem().Exists(file)) return 0;
    const std::string text = Read(file);
    return std::count(text.begin(), text.end(), '\n');
  }
  bool AwaitSteps(const std::string& run, int64_t steps) const {
    const auto until = std::chrono::steady_clock::now() + seconds(60);
    while (Steps(run) < steps && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return Steps(run) >= steps;
  }
  // Until the head's log says so a second time: it has begun anew.
  bool AwaitSecond(const std::string& run, const std::string& words) const {
    const std::string log = temp_ / (run + "/logs/train.log");
    const auto until = std::chrono::steady_clock::now() + seconds(60);
    const auto twice = [&] {
      const std::string text = RealFileSystem().Exists(log) ? Read(log) : "";
      return text.find(words) != text.rfind(words);
    };
    while (!twice() && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return twice();
  }
  int64_t Counter(const std::string& run, const std::string& name) const {
    return nlohmann::json::parse(Read(temp_ / (run + "/summary.json")))["counters"].value(
        name, int64_t{-1});
  }

  const TempFolder temp_;
  std::vector<pid_t> children_;
};

// Two actors and a reward worker join; one actor is killed in the middle of the run, another one
// joins late.
TEST_F(ClusterTrain, IsTheRunOfOneProcessWhoeverComesAndGoes) {
  constexpr int64_t kSteps = 40;
  ASSERT_EQ(Train(temp_ / "local", kSteps, {"--quiet"}).code, 0);
  const pid_t head = Head("run", kSteps);
  const std::string join = Listens("run");
  ASSERT_NE(join, "") << Said("run");
  const pid_t reward = Role("reward", "reward-0", join);
  const pid_t first = Role("actor", "actor-0", join), second = Role("actor", "actor-1", join);
  ASSERT_TRUE(AwaitSteps("run", 3)) << Said("run") << Said("actor-0");
  ASSERT_LT(Steps("run"), kSteps - 5) << "too quick to disturb: more steps";
  kill(first, SIGKILL);
  EXPECT_EQ(End(first), 128 + SIGKILL);
  const pid_t late = Role("actor", "actor-late", join);
  EXPECT_EQ(End(head), 0) << Said("run");
  EXPECT_EQ(End(second), 0) << Said("actor-1");
  EXPECT_EQ(End(late), 0) << Said("actor-late");
  EXPECT_EQ(End(reward), 0) << Said("reward-0");
  ExpectSameRun(temp_ / "local", temp_ / "run");
  EXPECT_EQ(Counter("run", "cluster/joined"), 4);
  EXPECT_EQ(Counter("run", "cluster/left"), 3);
  EXPECT_EQ(Counter("run", "cluster/lost"), 1);
  EXPECT_GT(Counter("run", "cluster/groups_scored"), 0);
  EXPECT_FALSE(RealFileSystem().Exists(temp_ / (std::string("run/") + kClusterFile)));
}

// Without a reward worker the head scores. An actor that is asked to end leaves at once, gives its
// leases back, and another one of its name goes on.
TEST_F(ClusterTrain, AnActorThatLeavesIsMissedByNobody) {
  constexpr int64_t kSteps = 30;
  ASSERT_EQ(Train(temp_ / "local", kSteps, {"--quiet"}).code, 0);
  const pid_t head = Head("run", kSteps);
  const std::string join = Listens("run");
  const pid_t first = Role("actor", "actor-0", join);
  ASSERT_TRUE(AwaitSteps("run", 2)) << Said("run") << Said("actor-0");
  kill(first, SIGTERM);
  EXPECT_EQ(End(first, seconds(10)), kExitFewerSteps) << Said("actor-0");
  const pid_t again = Role("actor", "actor-0", join);
  EXPECT_EQ(End(head), 0) << Said("run");
  EXPECT_EQ(End(again), 0) << Said("actor-0");
  ExpectSameRun(temp_ / "local", temp_ / "run");
  EXPECT_EQ(Counter("run", "cluster/lost"), 0);
  EXPECT_EQ(Counter("run", "cluster/groups_scored"), 0);
  EXPECT_GT(Counter("run", "cluster/groups_scored_here"), 0);
  EXPECT_TRUE(RealFileSystem().List(temp_ / "work").empty()) << "their folders are gone";
}

// The head is killed and resumed: roles wait for it and join again, with the recipe that it then
// has.
TEST_F(ClusterTrain, RolesComeBackAfterTheHeadsRestart) {
  constexpr int64_t kSteps = 24;
  ASSERT_EQ(Train(temp_ / "local", kSteps, {"--quiet"}).code, 0);
  const std::string port = LastingPort();
  const pid_t head = Head("run", kSteps, {}, port);
  const std::string join = Listens("run");
  const pid_t actor = Role("actor", "actor-0", join), reward = Role("reward", "reward-0", join);
  ASSERT_TRUE(AwaitSteps("run", 5)) << Said("run") << Said("actor-0");
  kill(head, SIGKILL);
  EXPECT_EQ(End(head), 128 + SIGKILL);
  kill(actor, SIGSTOP);  // or the run may be over before the reward worker asks again
  // Only this door has to be where it was; the welcome names the others. It is free again once the
  // roles' connections to it are gone.
  const pid_t second = Start(TrainLine(temp_ / "run", kSteps,
                                       {"--quiet", "--resume", "--set", "run.roles=cluster",
                                        "--set", "run.listen=tcp://127.0.0.1:" + port}),
                             "again");
  EXPECT_TRUE(AwaitSecond("run", "reward-0 has joined")) << Said("again") << Said("reward-0");
  kill(actor, SIGCONT);
  EXPECT_EQ(End(second), 0) << Said("again");
  EXPECT_EQ(End(actor), 0) << Said("actor-0");
  EXPECT_EQ(End(reward), 0) << Said("reward-0");
  ExpectSameRun(temp_ / "local", temp_ / "run");
}

// Four actors with keys in a chain, and only what has changed of each version: one in the middle is
// killed, one is stopped for a while, and the run is that of one process all the same.
TEST_F(ClusterTrain, WeightsThatActorsHandOnAreTheSameWeights) {
  constexpr int64_t kSteps = 40, kActors = 4;
  ASSERT_EQ(Train(temp_ / "local", kSteps, {"--quiet"}).code, 0);
  const std::string keys = temp_ / "keys";
  WriteClusterKeys(keys);
  const pid_t head = Head(
      "run", kSteps,
      {"--set", "run.keys=" + keys, "--set", "run.relay=1", "--set", "run.weight_deltas=true"});
  const std::string join = Listens("run");
  ASSERT_NE(join, "") << Said("run");
  std::vector<pid_t> actors;
  for (int64_t i = 0; i < kActors; ++i)
    actors.push_back(Role("actor", "actor-" + std::to_string(i), join, {"--keys", keys}));
  ASSERT_TRUE(AwaitSteps("run", 8)) << Said("run") << Said("actor-0");
  ASSERT_LT(Steps("run"), kSteps - 10) << "too quick to disturb: more steps";
  kill(actors[1], SIGKILL);
  EXPECT_EQ(End(actors[1]), 128 + SIGKILL);
  kill(actors[2], SIGSTOP);
  ASSERT_TRUE(AwaitSteps("run", Steps("run") + 2)) << Said("run");
  kill(actors[2], SIGCONT);
  EXPECT_EQ(End(head), 0) << Said("run");
  for (const int i : {0, 3}) EXPECT_EQ(End(actors[static_cast<size_t>(i)]), 0) << Said("run");
  // It may have been counted as lost, and the run over before it was back: it waits for the head.
  if (const int code = End(actors[2], seconds(5)); code != 0) {
    EXPECT_EQ(code, -1) << Said("actor-2");
    kill(actors[2], SIGTERM);
    EXPECT_EQ(End(actors[2], seconds(20)), kExitFewerSteps) << Said("actor-2");
  }
  ExpectSameRun(temp_ / "local", temp_ / "run");
  EXPECT_GE(Counter("run", "cluster/relays_reached"), kActors);
  EXPECT_GT(Counter("run", "actor/weight_bytes_handed_on"), 0);
  EXPECT_GT(Counter("run", "actor/weight_bytes_saved"), 0);
  const int64_t sent = Counter("run", "cluster/weight_bytes"),
                came = Counter("run", "actor/weight_bytes");
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, came) << "actors have sent the rest";
  EXPECT_EQ(Counter("run", "cluster/keys_refused"), 0);
}

// Behind something that lets it only out an actor has its weights all the same.
TEST_F(ClusterTrain, AnActorThatListensNowhereHandsNothingOn) {
  const pid_t head = Head("run", 3, {"--set", "run.relay=2"});
  const std::string join = Listens("run");
  const pid_t shut = Role("actor", "shut", join, {"--hands-on", "none"});
  EXPECT_EQ(End(head), 0) << Said("run");
  EXPECT_EQ(End(shut), 0) << Said("shut");
  EXPECT_EQ(Counter("run", "cluster/relays_reached"), 0);
  EXPECT_EQ(Counter("run", "actor/weights_elsewhere"), 0);
}

TEST_F(ClusterTrain, WhoIsNotToJoinIsToldWhyAndCounted) {
  const std::string keys = temp_ / "keys", others = temp_ / "others";
  WriteClusterKeys(keys);
  WriteClusterKeys(others);
  const pid_t head = Head("run", 2, {"--set", "run.keys=" + keys});
  const std::string join = Listens("run");
  ASSERT_NE(join, "") << Said("run");
  const std::string digest =
      nlohmann::json::parse(Read(temp_ / (std::string("run/") + kClusterFile)))["recipe"];

  // A key of another cluster, though it knows the head's.
  RealFileSystem().WriteFileAtomic(others + "/head.pub", Read(keys + "/head.pub"));
  EXPECT_EQ(End(Role("actor", "stranger", join, {"--keys", others})), 9) << Said("stranger");
  EXPECT_TRUE(Has(Said("stranger"), "does not let this key in")) << Said("stranger");
  EXPECT_EQ(End(Role("actor", "keyless", join, {"--wait", "1"})), 6) << Said("keyless");
  EXPECT_EQ(
      End(Role("actor", "elsewhere", join, {"--keys", keys, "--recipe", std::string(64, '0')})), 2)
      << Said("elsewhere");
  EXPECT_TRUE(Has(Said("elsewhere"), "it belongs to another run")) << Said("elsewhere");
  EXPECT_EQ(End(Role("actor", "options", join, {"--keys", keys, "--set", "run.seed=2"})), 2);
  EXPECT_TRUE(Has(Said("options"), "is the head's to say")) << Said("options");
  EXPECT_EQ(Steps("run"), 0) << "nobody has answered";

  const pid_t actor = Role("actor", "actor-0", join, {"--keys", keys, "--recipe", digest});
  EXPECT_EQ(End(head), 0) << Said("run");
  EXPECT_EQ(End(actor), 0) << Said("actor-0");
  EXPECT_GE(Counter("run", "cluster/keys_refused"), 1);
  EXPECT_EQ(Counter("run", "cluster/refused"), 1);
}

TEST_F(ClusterTrain, ANewerRoleOfTheSameNameFencesTheOlder) {
  const pid_t head = Head("run", 4000);
  const std::string join = Listens("run");
  const pid_t older = Role("actor", "actor-0", join);
  ASSERT_TRUE(AwaitSteps("run", 1)) << Said("run") << Said("actor-0");
  const pid_t newer = StartProgram({"role", "actor", "--join", join, "--name", "actor-0", "--work",
                                    temp_ / "work", "--set", "run.threads=1"},
                                   temp_ / "newer");
  ASSERT_GT(newer, 0);
  children_.push_back(newer);
  EXPECT_EQ(End(older, seconds(30)), 2) << Said("actor-0");
  EXPECT_TRUE(Has(Said("actor-0"), "a newer process")) << Said("actor-0");
  const int64_t before = Steps("run");
  EXPECT_TRUE(AwaitSteps("run", before + 2)) << "the newer one goes on: " << Said("newer");
  kill(head, SIGTERM);
  EXPECT_EQ(End(head), kExitFewerSteps) << Said("run");
  // The head that was asked to end says so to its roles, unless this one is asked sooner.
  kill(newer, SIGTERM);
  const int code = End(newer, seconds(20));
  EXPECT_TRUE(code == 0 || code == kExitFewerSteps) << code << "\n" << Said("newer");
}

TEST_F(ClusterTrain, ARoleWithoutAHeadSaysSo) {
  EXPECT_EQ(End(Role("actor", "actor-0", "tcp://127.0.0.1:9", {"--wait", "1"}), seconds(30)), 6);
  EXPECT_TRUE(Has(Said("actor-0"), "no head answered within 1 s")) << Said("actor-0");
  EXPECT_EQ(End(Role("learner", "l", "tcp://127.0.0.1:9")), 2);
  EXPECT_EQ(End(Role("actor", "a", "tcp://head.example:7777")), 9)
      << "beyond the loopback only with keys: " << Said("a");
}

TEST_F(ClusterTrain, AHeadBeyondTheLoopbackNeedsKeysOrAWord) {
  const auto refused = RunPlumb(TrainLine(
      temp_ / "run", 1,
      {"--quiet", "--set", "run.roles=cluster", "--set", "run.listen=tcp://0.0.0.0:7777"}));
  EXPECT_EQ(refused.code, 9) << refused.err;
  EXPECT_TRUE(Has(refused.err, "--insecure")) << refused.err;
}

TEST_F(ClusterTrain, AHeadThatNobodyJoinsSaysHow) {
  const auto alone =
      RunPlumb(TrainLine(temp_ / "run", 1,
                         {"--quiet", "--set", "run.roles=cluster", "--set",
                          "run.listen=tcp://127.0.0.1:*", "--set", "run.stall_seconds=1"}));
  EXPECT_EQ(alone.code, 6) << alone.err;
  EXPECT_TRUE(Has(alone.err, "no actor has joined within 1 s")) << alone.err;
}

}  // namespace
}  // namespace plumb::run::testing
