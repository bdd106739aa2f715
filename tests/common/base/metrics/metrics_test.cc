// One name, one value, in every sink. common/base/metrics/metrics.h
#include "common/base/metrics/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/base/hash/crc32c.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/http_get.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using testing::FakeClock;
using testing::HttpGet;
using testing::TempFolder;

std::string Read(const std::string& path) {
  return RealFileSystem().ReadFile(path, size_t{1} << 24);
}

TEST(Metrics, JsonlHasOneObjectAStep) {
  TempFolder folder;
  FakeClock clock(1'700'000'000'123);
  Metrics metrics(clock);
  metrics.AddSink(MakeJsonlSink(folder / "m.jsonl"));
  metrics.Set("reward/mean", 0.1);
  metrics.Set("odd \"name\"\n", -1e300);
  metrics.Add("replay/inserts", 2);
  metrics.Step(0);
  EXPECT_EQ(metrics.Last().at("reward/mean"), 0.1);
  metrics.Add("replay/inserts");
  metrics.Set("optim/grad_norm", std::nan(""));
  metrics.Set("policy/ratio", std::numeric_limits<double>::infinity());
  clock.Advance(1000);
  metrics.Step(1);
  EXPECT_EQ(
      Read(folder / "m.jsonl"),
      "{\"step\":0,\"wall_s\":1700000000.123,\"odd "
      "\\\"name\\\"\\u000a\":-1e+300,\"replay/inserts\":2,"
      "\"reward/mean\":0.1}\n"
      "{\"step\":1,\"wall_s\":1700000001.123,\"metrics/non_finite\":2,\"optim/grad_norm\":null,"
      "\"policy/ratio\":null,\"replay/inserts\":3}\n");
}

TEST(Metrics, TimersOfAStepAddUp) {
  Metrics metrics;
  for (int i = 0; i < 2; ++i) {
    const auto timer = metrics.Time("time/train");
    ::usleep(5000);
  }
  metrics.Step(0);
  EXPECT_GE(metrics.Last().at("time/train"), 0.010);
  metrics.Step(1);
  EXPECT_FALSE(metrics.Last().contains("time/train"));
}

void WriteSteps(MetricsSink& sink, int64_t begin, int64_t end) {
  for (int64_t step = begin; step < end; ++step)
    sink.Write(step, 5, {{"a", 0.5 * static_cast<double>(step)}});
}

TEST(Metrics, ResumedJsonlEqualsTheUnbrokenOne) {
  TempFolder folder;
  WriteSteps(*MakeJsonlSink(folder / "unbroken"), 0, 20);
  WriteSteps(*MakeJsonlSink(folder / "resumed"), 0, 13);
  // killed while it wrote
  RealFileSystem().OpenAppend(folder / "resumed")->Append("{\"step\":13,\"wall");
  WriteSteps(*MakeJsonlSink(folder / "resumed", 10), 10, 20);
  EXPECT_EQ(Read(folder / "resumed"), Read(folder / "unbroken"));
  // If dropping fails, nothing is lost.
  testing::FaultyFileSystem files;
  files.FailAt(2, testing::FaultyFileSystem::Fault::kNoSpace);
  EXPECT_THROW(MakeJsonlSink(folder / "resumed", 5, files), Error);
  EXPECT_EQ(Read(folder / "resumed"), Read(folder / "unbroken"));
}

TEST(Metrics, FullDiskIsSaid) {
  TempFolder folder;
  testing::FaultyFileSystem files;
  Metrics metrics;
  metrics.AddSink(MakeJsonlSink(folder / "m.jsonl", 0, files));
  files.FailAt(1, testing::FaultyFileSystem::Fault::kNoSpace);
  try {
    metrics.Step(0);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNoSpace);
  }
}

// The frames, and by hand the bytes of the protobuf inside.
TEST(Metrics, TensorBoardFramesAndEvents) {
  TempFolder folder;
  FakeClock clock(2000);
  {
    const auto sink = MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock);
    sink->Write(300, 1.5, {{"ab", 0.25}});
  }
  const auto names = RealFileSystem().List(folder / "tb");
  ASSERT_EQ(names.size(), 1u);
  EXPECT_EQ(names[0].rfind("events.out.tfevents.0000000002.", 0), 0u);
  const std::string text = Read(folder / "tb/" + names[0]);
  std::vector<std::string> events;
  for (size_t at = 0; at < text.size();) {
    ASSERT_LE(at + 12, text.size());
    uint64_t length;
    uint32_t sum;
    std::memcpy(&length, text.data() + at, 8);
    std::memcpy(&sum, text.data() + at + 8, 4);
    const auto unmask = [](uint32_t m) { return m -= 0xa282ead8u, (m >> 17) | (m << 15); };
    EXPECT_EQ(unmask(sum), Crc32c(text.data() + at, 8));
    ASSERT_LE(at + 16 + length, text.size());
    events.push_back(text.substr(at + 12, length));
    std::memcpy(&sum, text.data() + at + 12 + length, 4);
    EXPECT_EQ(unmask(sum), Crc32c(events.back()));
    at += 16 + length;
  }
  ASSERT_EQ(events.size(), 3u);
  EXPECT_NE(events[0].find("\x1a\x0d"
                           "brain.Event:2"),
            std::string::npos);
  const std::string head("\x09\0\0\0\0\0\0\xf8\x3f\x10\xac\x02", 12);  // 1.5 s, step 300
  EXPECT_EQ(events[1], head + "\x3a\x02\x08\x01");                     // session starts
  EXPECT_EQ(events[2], head + std::string("\x2a\x0b\x0a\x09\x0a\x02"
                                          "ab\x15\0\0\x80\x3e",
                                          13));
}

TEST(Metrics, TensorBoardFileOfItsOwnForEachStart) {
  TempFolder folder;
  FakeClock clock(2000);
  const auto a = MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock);
  const auto b = MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock);
  EXPECT_EQ(RealFileSystem().List(folder / "tb").size(), 2u);
}

TEST(Metrics, PrometheusAnswersAndSurvivesBadClients) {
  auto owned = MakePrometheusSink(0, {{"role", "learner"}, {"run", "a \"b\""}});
  owned->CountersAre({"dropped/groups"});
  const int port = owned->port();
  Metrics metrics;
  metrics.AddSink(std::move(owned));
  metrics.Set("reward/mean", 0.5);
  metrics.Set("policy/loss", std::nan(""));
  metrics.Set("dropped/groups", 3);
  metrics.Set("reward/a-b", 1);
  metrics.Set("reward/a_b", 2);
  metrics.Step(41);
  const std::string reply = HttpGet(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(reply.rfind("HTTP/1.0 200 OK\r\n", 0), 0u) << reply;
  const std::string labels = "role=\"learner\",run=\"a \\\"b\\\"\"";
  for (const std::string& line :
       {"# HELP plumb_reward_mean reward/mean of docs/metrics.md\n# TYPE plumb_reward_mean gauge\n"
        "plumb_reward_mean{" +
            labels + "} 0.5",
        "plumb_policy_loss{" + labels + "} NaN", "plumb_step{" + labels + "} 41",
        "# TYPE plumb_dropped_groups_total counter\nplumb_dropped_groups_total{" + labels + "} 3",
        "# TYPE plumb_reward_a_b gauge\nplumb_reward_a_b{" + labels +
            ",name=\"reward/a-b\"} 1\nplumb_reward_a_b{" + labels + ",name=\"reward/a_b\"} 2"}) {
    EXPECT_NE(reply.find("\n" + line + "\n"), std::string::npos) << line << "\n" << reply;
  }
  EXPECT_EQ(HttpGet(port, "GET /other HTTP/1.1\r\n\r\n").rfind("HTTP/1.0 404", 0), 0u);
  HttpGet(port, std::string(20000, 'x'));
  EXPECT_EQ(HttpGet(port, "GET /metrics HTTP/1.1\r\n\r\n").rfind("HTTP/1.0 200", 0), 0u);
  try {
    MakePrometheusSink(port);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(e.what()).find(std::to_string(port)), std::string::npos);
  }
  EXPECT_THROW(MakePrometheusSink(70000), Error);
}

}  // namespace
}  // namespace plumb
