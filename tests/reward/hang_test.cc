// RELIABILITY row 12 for rewards: whatever hangs behind a door is named in the log within its
// deadline and five seconds, and the pool (reward/doors/worker_pool.h) says where a group waits
// while it waits.
#include <gtest/gtest.h>

#include <random>

#include "common/net/frame_socket.h"
#include "tests/reward/testing.h"
#include "tests/testing/http_server.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using std::chrono::milliseconds;

TEST(Hangs, TwentySeededOnesAreNamedInTime) {
  plumb::testing::TempFolder folder;
  std::atomic<bool> over{false};
  const auto hang = [&] {
    for (int i = 0; i < 500 && !over; ++i) usleep(2000);
  };
  FrameServer silent(folder.Ipc("s"),
                     [&](std::string_view, milliseconds) {
                       hang();
                       return std::string();
                     },
                     {.workers = 4});
  plumb::testing::HttpServer web([&](const plumb::testing::HttpRequest&) {
    hang();
    return std::string();
  });
  const bool python = std::system("python3 -c 'import json' > /dev/null 2>&1") == 0;
  std::mt19937 random(12);
  for (uint64_t i = 0; i < 20; ++i) {
    configs::RewardPartConfig part;
    // a Python that starts twice is the dearest: one of sixteen
    const uint32_t door = random() % 16;
    switch (door == 15 && python ? 5 : door % 5) {
      case 0: part = TestPart("plugin", PluginPath("loop")); break;
      case 1: part = TestPart("program", "sh", {"-c", "sleep 100"}); break;
      case 2: part = TestPart("zmq"), part.endpoint = silent.endpoint(); break;
      case 3:
        part = TestPart("http"), part.api = configs::HttpApi::kOpenRlhf, part.endpoint = web.url();
        break;
      case 4: part = TestPart("judge"), part.model = "m", part.endpoint = web.url(); break;
      default:
        part = TestPart("python", PLUMB_SOURCE_DIR "/tests/reward/python/hostile.py",
                        {"function=hangs"});
    }
    part.name = "part" + std::to_string(i);
    part.timeout_s = 0.15 + 0.01 * static_cast<double>(random() % 20);
    configs::RewardConfig config;
    config.parts = {part};
    config.retries = 0;
    HostOptions host = TestHost();
    host.start_grace = milliseconds(part.kind == "program" ? 0 : 10000);
    host.pool.stall_after = milliseconds(50);
    GroupScorer scorer(config, host);
    Notices notices;
    const uint64_t lease = 1000 + random() % 9000;
    TrajectoryGroup group = TestGroup({"bad", "bad"}, "", "", lease);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored) << part.kind;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << part.kind;
    const std::string log = notices.text(), who = "group " + std::to_string(lease) +
                                                  " on reward '" + part.name + "' at worker 0 for";
    EXPECT_NE(log.find("waiting for " + who), std::string::npos) << part.kind << ": " << log;
    EXPECT_NE(
        log.find("reward '" + part.name + "' on group " + std::to_string(lease) + ": timeout"),
        std::string::npos)
        << part.kind << ": " << log;
  }
  over = true;
}

}  // namespace
}  // namespace plumb::reward
