// What each front door adds to a group of 8, printed for docs/benchmarks.md; the bounds only catch
// a broken design (a process started a call, a poll that sleeps), not a slow machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

void Measure(const char* door, const configs::RewardPartConfig& part, double bound_ms) {
  configs::RewardConfig config;
  config.parts = {part};
  GroupScorer scorer(config, TestHost());
  std::vector<double> ms;
  for (int i = 0; i < 201; ++i) {
    TrajectoryGroup group = TestGroup(
        std::vector<std::string>(8, "<think>a b c</think><answer>please 4</answer>"), "4");
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (i > 0) ms.push_back(took.count());  // the first starts the process
  }
  std::sort(ms.begin(), ms.end());
  std::printf("%-28s group of 8: p50 %.3f ms, p99 %.3f ms\n", door, ms[100], ms[198]);
  EXPECT_LT(ms[100], bound_ms);
}

TEST(FrontDoors, AddedTimeAGroup) {
  auto slow = [](configs::RewardPartConfig part) {
    part.timeout_s = 20;
    return part;
  };
  Measure("rule in process", TestPart("answer"), 5);
  Measure("shared object (plugin host)", slow(TestPart("plugin", PluginPath("keyword_reward"))),
          50);
  Measure("program (sh)",
          slow(TestPart("program", PLUMB_SOURCE_DIR "/examples/rewards/polite_reward.sh")), 100);
  if (std::system("python3 -c 'import json' > /dev/null 2>&1") != 0) return;
  Measure("python (TRL function)",
          slow(TestPart("python", PLUMB_SOURCE_DIR "/examples/rewards/trl_reward.py")), 50);
}

}  // namespace
}  // namespace plumb::reward
