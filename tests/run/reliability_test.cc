// Rows 2, 4, 8 and 10 of docs/reliability.md on whole runs: killed, stopped and resumed anywhere, a
// run ends with the bits of the run that nothing happened to. PLUMB_RELIABILITY=ci raises the
// counts from smoke to the sizes of make test-reliability.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/base/crash_point.h"
#include "common/base/rng.h"
#include "tests/run/toy_run.h"
#include "tests/testing/reliability.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::Count;
using plumb::testing::TempFolder;
using std::chrono::milliseconds;
using testing::ExpectSameRun;
using testing::Lines;
using testing::Read;
using testing::RunPlumb;
using testing::StartProgram;
using testing::Train;
using testing::TrainLine;
using SteadyClock = std::chrono::steady_clock;

constexpr int64_t kSteps = 40;

int64_t StepsDone(const std::string& run) {
  if (!RealFileSystem().Exists(run + "/metrics.jsonl")) return 0;
  const std::string metrics = Read(run + "/metrics.jsonl");
  return std::count(metrics.begin(), metrics.end(), '\n');
}

// Kills the child and reaps it; false when it had ended by itself.
bool Kill(pid_t child) {
  int status = 0;
  ::kill(child, SIGKILL);
  return waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

// Row 8: killed at moments that nobody chose (keyed by the seed), also before the first step and
// between two kills without progress, and resumed each time.
TEST(ReliabilityTest, KilledAnywhereAndResumedEqualsUnbroken) {
  const TempFolder temp;
  const auto begin = SteadyClock::now();
  ASSERT_EQ(Train(temp / "whole", kSteps).code, 0);
  const auto whole_ms =
      std::chrono::duration_cast<milliseconds>(SteadyClock::now() - begin).count();
  const std::string run = temp / "killed";
  RandomStream random(81, 0);
  const int kills = Count(4, 20);
  int done = 0;
  for (int attempt = 0; done < kills && attempt < 4 * kills; ++attempt) {
    std::vector<std::string> line = TrainLine(run, kSteps, {"--quiet"});
    if (RealFileSystem().Exists(run + "/run.json")) line.push_back("--resume");
    const pid_t child = StartProgram(line, run);
    ASSERT_GT(child, 0);
    std::this_thread::sleep_for(milliseconds(
        300 + random.NextBelow(static_cast<uint32_t>(std::max<int64_t>(100, whole_ms)))));
    // it came to its end: the next life starts over in another folder of the same run
    if (!Kill(child)) {
      ASSERT_TRUE(RealFileSystem().Exists(run + "/summary.json")) << Read(run + ".out");
      ExpectSameRun(temp / "whole", run);
      RealFileSystem().RemoveAll(run);
      continue;
    }
    ++done;
  }
  ASSERT_EQ(done, kills) << "the run was too fast to be killed";
  const auto resumed = RealFileSystem().Exists(run + "/run.json") ? Train(run, kSteps, {"--resume"})
                                                                  : Train(run, kSteps);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  ExpectSameRun(temp / "whole", run);
}

// Row 4: the learner's named places, three visits each.
TEST(ReliabilityTest, LearnerKilledAtItsCrashPointsResumes) {
  const TempFolder temp;
  constexpr int64_t kFew = 8;
  ASSERT_EQ(Train(temp / "whole", kFew).code, 0);
  for (const char* point :
       {"before_update", "after_publish", "before_checkpoint", "after_checkpoint"}) {
    for (int visit = 1; visit <= 3; ++visit) {
      const std::string run = temp / (std::string(point) + std::to_string(visit));
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ArmCrashPointForTest(point, visit);
        RunPlumb(TrainLine(run, kFew, {"--quiet"}));
        _exit(0);  // the place was never reached
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point << " " << visit;
      const auto resumed = Train(run, kFew, {"--resume"});
      ASSERT_EQ(resumed.code, 0) << point << " " << visit << ": " << resumed.err;
      ExpectSameRun(temp / "whole", run);
    }
  }
}

// Row 10: a role is frozen for longer than the stream's heartbeats allow and goes on as if nothing
// had been: whatever it still sends counts once.
TEST(ReliabilityTest, FrozenRolesChangeNothing) {
  const TempFolder temp;
  ASSERT_EQ(Train(temp / "whole", kSteps).code, 0);
  const std::string run = temp / "frozen";
  std::vector<std::string> line = TrainLine(run, kSteps, {"--roles", "processes"});
  const pid_t program = StartProgram(line, run);
  ASSERT_GT(program, 0);
  const std::vector<std::string> all = {"actor-0", "reward-0", "replay", "learner"};
  const int freezes = Count(1, 5);
  int done = 0;
  const auto deadline = SteadyClock::now() + std::chrono::seconds(60 + 20 * freezes);
  while (done < freezes && SteadyClock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(3));
    if (StepsDone(run) < 3 + 5 * done || !RealFileSystem().Exists(run + "/pids.json")) continue;
    const auto pid =
        nlohmann::json::parse(Read(run + "/pids.json"))[all[static_cast<size_t>(done) % all.size()]]
            .get<pid_t>();
    ASSERT_GT(pid, 1);
    ASSERT_EQ(::kill(pid, SIGSTOP), 0);
    const int64_t before = StepsDone(run);
    // heartbeats are given up after 5 s (common/net/stream/transport.h)
    std::this_thread::sleep_for(milliseconds(6000));
    EXPECT_LE(StepsDone(run), before + 2) << "the ring went on without one of its roles";
    ASSERT_EQ(::kill(pid, SIGCONT), 0);
    ++done;
  }
  EXPECT_EQ(done, freezes);
  int status = 0;
  ASSERT_EQ(waitpid(program, &status, 0), program);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << Read(run + ".out");
  ExpectSameRun(temp / "whole", run);
}

// Row 2 at CI size only: the smoke size is TrainCommandTest.KilledRolesChangeNothing.
TEST(ReliabilityTest, RolesKilledManyTimesChangeNothing) {
  if (Count(0, 1) == 0)
    GTEST_SKIP() << "CI size: make test-reliability; the smoke size is "
                    "TrainCommandTest.KilledRolesChangeNothing";
  const TempFolder temp;
  constexpr int64_t kMany = 200;
  ASSERT_EQ(Train(temp / "whole", kMany).code, 0);
  const std::string run = temp / "killed";
  const pid_t program = StartProgram(TrainLine(run, kMany, {"--roles", "processes"}), run);
  ASSERT_GT(program, 0);
  const std::vector<std::string> roles = {"actor-0", "reward-0", "replay", "learner"};
  int kills = 0, status = 0;
  const auto deadline = SteadyClock::now() + std::chrono::minutes(10);
  while (kills < 30 && SteadyClock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(3));
    // Six steps of progress between kills: a role that dies again and again is given up on purpose
    // (run/roles/supervisor.h).
    if (StepsDone(run) < 4 + 6 * kills || !RealFileSystem().Exists(run + "/pids.json")) continue;
    const auto pid =
        nlohmann::json::parse(Read(run + "/pids.json"))[roles[static_cast<size_t>(kills) % 4]]
            .get<pid_t>();
    if (pid <= 1) continue;
    ::kill(pid, SIGKILL);
    ++kills;
    std::this_thread::sleep_for(milliseconds(4000));
  }
  EXPECT_EQ(kills, 30);
  ASSERT_EQ(waitpid(program, &status, 0), program);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << Read(run + ".out");
  ExpectSameRun(temp / "whole", run);
}

}  // namespace
}  // namespace plumb::run
