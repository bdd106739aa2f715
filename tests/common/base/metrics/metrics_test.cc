// One name, one value, in every sink. common/base/metrics/metrics.h
#include "common/base/metrics/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "common/base/error.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/http_get.h"
#include "tests/testing/paths.h"
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
  for (const char* other :
       {"GET /other", "GET /", "GET /metricsx", "GET /metrics/", "POST /metrics"}) {
    EXPECT_EQ(HttpGet(port, std::string(other) + " HTTP/1.1\r\n\r\n").rfind("HTTP/1.0 404", 0), 0u)
        << other;
  }
  EXPECT_EQ(HttpGet(port, "GET /metrics?name[]=x HTTP/1.1\r\n\r\n").rfind("HTTP/1.0 200", 0), 0u);
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

TEST(Metrics, PrometheusSaysThatItIsUpBeforeTheFirstStep) {
  const auto sink =
      MakePrometheusSink(0, {{"role", "learner"}, {"run", "a"}}, {{"version", "0.1.0"}});
  const auto body = [&] {
    const std::string reply = HttpGet(sink->port());
    return reply.substr(reply.find("\r\n\r\n") + 4);
  };
  const std::string head =
      "# HELP plumb_up 1 while the run goes on\n# TYPE plumb_up gauge\n"
      "plumb_up{role=\"learner\",run=\"a\"} 1\n"
      "# HELP plumb_info What runs here, in its labels\n# TYPE plumb_info gauge\n"
      "plumb_info{role=\"learner\",run=\"a\",version=\"0.1.0\"} 1\n";
  EXPECT_EQ(body(), head);
  sink->Write(0, 1.7e9, {{"reward/mean", 0.5}});
  EXPECT_EQ(body().rfind(head, 0), 0u) << "and after it";
  EXPECT_NE(body().find("\nplumb_reward_mean{"), std::string::npos);
  const auto bare = MakePrometheusSink(0);
  EXPECT_NE(HttpGet(bare->port()).find("\nplumb_up 1\n"), std::string::npos);
}

// The last step that a resumed run keeps.
TEST(Metrics, LastValuesOfAFile) {
  const TempFolder folder;
  const std::string path = folder / "metrics.jsonl";
  EXPECT_TRUE(LastJsonlValues(path, 9).empty()) << "no file";
  RealFileSystem().WriteFileAtomic(
      path,
      "{\"step\":0,\"wall_s\":1,\"a\":1}\n{\"step\":1,\"wall_s\":2,"
      "\"a\":2,\"b\":null}\n{\"step\":2,\"a\n{\"step\":3,\"a\":4}\n{\"st");
  EXPECT_EQ(LastJsonlValues(path, 9).at("a"), 4);
  EXPECT_EQ(LastJsonlValues(path, 3).at("a"), 2) << "the torn line is none";
  EXPECT_FALSE(LastJsonlValues(path, 3).contains("b"));
  EXPECT_EQ(LastJsonlValues(path, 1).at("a"), 1);
  EXPECT_TRUE(LastJsonlValues(path, 0).empty());
}

TEST(Metrics, ValuesThatWereNotFiniteAreCountedOverLives) {
  Metrics metrics;
  metrics.GoOnFrom({{"metrics/non_finite", 3}, {"reward/mean", 1}});
  metrics.Set("policy/loss", std::nan(""));
  metrics.Step(7);
  EXPECT_EQ(metrics.Last().at("metrics/non_finite"), 4);
  EXPECT_FALSE(metrics.Last().contains("reward/mean"));
}

// By Prometheus's own tools, where they are: tests/common/base/metrics/check_exposition.py.
TEST(Metrics, PrometheusToolsTakeTheText) {
  auto sink =
      MakePrometheusSink(0, {{"role", "learner"}, {"run", "a \"b\"\\\n"}}, {{"version", "0.1.0"}});
  sink->CountersAre({"dropped/groups", "refused/other_weights"});
  sink->Write(3, 1.7e9,
              {{"reward/mean", 0.5},
               {"reward/my part.words/mean", 29},
               {"reward/my_part.words/mean", 30},
               {"policy/loss", std::nan("")},
               {"policy/ratio", std::numeric_limits<double>::infinity()},
               {"optim/lr", 1e-300},
               {"perf/tokens_per_s", -0.0},
               {"perf/peak_memory_gb", 3},
               {"dropped/groups", 3},
               {"refused/other_weights", 1e18}});
  const std::string reply = HttpGet(sink->port());
  const TempFolder folder;
  RealFileSystem().WriteFileAtomic(folder / "text", reply.substr(reply.find("\r\n\r\n") + 4));
  const char* python = std::getenv("PLUMB_TEST_METRICS_PYTHON");
  const int status =
      std::system(("timeout 60 '" + std::string(python ? python : "python3") + "' '" +
                   testing::SourcePath("tests/common/base/metrics/check_exposition.py") + "' '" +
                   (folder / "text") + "' >'" + (folder / "log") + "' 2>&1")
                      .c_str());
  const std::string said = Read(folder / "log");
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (code == 77 || code == 127) {
    GTEST_SKIP() << "SKIPPED, no tool of Prometheus has read the text (name a Python that has "
                    "prometheus_client in PLUMB_TEST_METRICS_PYTHON): "
                 << said;
  }
  EXPECT_EQ(code, 0) << said << reply;
}

}  // namespace
}  // namespace plumb
