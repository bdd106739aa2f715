// The names of docs/metrics.md that people look for (COMPATIBILITY section 4) are there: in
// metrics.jsonl, in TensorBoard's event files and at the Prometheus endpoint, for PPO, GRPO with
// the log-probs computed again, and DPO; in one process and in several.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using Names = std::vector<std::string>;

const Names kEverywhere = {
    "policy/loss",     "optim/lr",  "optim/grad_norm", "optim/skipped",     "time/train",
    "time/checkpoint", "time/step", "perf/mfu",        "perf/tokens_per_s", "perf/peak_memory_gb"};
const Names kRollouts = {"reward/mean",
                         "reward/std",
                         "reward/short/mean",
                         "reward/zero_std_groups",
                         "objective/kl",
                         "policy/clip_fraction",
                         "policy/entropy",
                         "policy/approx_kl",
                         "policy/ratio",
                         "response_length/mean",
                         "response_length/min",
                         "response_length/max",
                         "response_length/clipped",
                         "offpolicy/staleness_mean",
                         "offpolicy/staleness_max",
                         "time/generate",
                         "time/reward",
                         "time/wait",
                         "time/publish",
                         "perf/decode_tokens_per_s",
                         "replay/inserts",
                         "replay/bytes",
                         "replay/queue",
                         "replay/duplicates"};
const Names kFresh = {"sampling/logprob_diff_mean", "sampling/logprob_diff_max"};
const Names kCritic = {"value/loss", "value/clip_fraction", "value/explained_variance"};
const Names kCorrected = {"sampling/importance_ratio"};

Names Together(std::initializer_list<Names> lists) {
  Names all;
  for (const Names& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

const std::vector<std::string> kPpo = {
    "--set", "algorithm.name=ppo",    "--set", "critic.learning_rate=1e-3",
    "--set", "algorithm.kl_coef=0.1", "--set", "run.checkpoint_every=1"};

// Every line of metrics.jsonl has every name, with a number where one can be.
void ExpectNames(const std::string& run, const Names& names) {
  const auto lines = Lines(run + "/metrics.jsonl");
  ASSERT_FALSE(lines.empty());
  std::string events;
  for (const auto& file : std::filesystem::directory_iterator(run + "/tensorboard"))
    events += Read(file.path());
  for (const std::string& name : names) {
    for (const auto& line : lines) {
      ASSERT_TRUE(line.contains(name)) << name << " in " << line.dump();
      EXPECT_TRUE(line[name].is_number()) << name << " is " << line[name];
    }
    EXPECT_TRUE(Has(events, name)) << name << " is not in the event files";
  }
}

TEST(MetricNamesTest, Ppo) {
  const TempFolder temp;
  const CliOutput output = Train(temp / "run", 3, kPpo);
  ASSERT_EQ(output.code, 0) << output.err;
  ExpectNames(temp / "run", Together({kEverywhere, kRollouts, kFresh, kCritic}));
  const auto lines = Lines(temp / "run/metrics.jsonl");
  // Numbers, not only names.
  EXPECT_GT(lines[1]["time/generate"].get<double>(), 0);
  EXPECT_GT(lines[1]["time/reward"].get<double>(), 0);
  EXPECT_GT(lines[1]["perf/decode_tokens_per_s"].get<double>(), 0);
  EXPECT_GT(lines[1]["time/checkpoint"].get<double>(), 0) << "a checkpoint after every step";
  EXPECT_GT(lines[1]["perf/mfu"].get<double>(), 0);
  EXPECT_LT(lines[1]["perf/mfu"].get<double>(), 1.5)
      << "a share of the speed of this machine's products";
  EXPECT_GT(lines[1]["perf/peak_memory_gb"].get<double>(), 0.01);
  EXPECT_LT(lines[1]["perf/peak_memory_gb"].get<double>(), 100);
  EXPECT_EQ(lines[1]["replay/queue"], 0) << "under sync nothing is generated ahead";
  EXPECT_LE(lines[1]["time/generate"].get<double>(), lines[1]["time/wait"].get<double>() * 2 + 0.5);
}

TEST(MetricNamesTest, GrpoWithLogprobsComputedAgain) {
  const TempFolder temp;
  const CliOutput output =
      Train(temp / "run", 3,
            {"--set", "algorithm.recompute_logprobs=true", "--set", "algorithm.kl_coef=0.01"});
  ASSERT_EQ(output.code, 0) << output.err;
  ExpectNames(temp / "run", Together({kEverywhere, kRollouts, kCorrected}));
}

TEST(MetricNamesTest, RolesInProcessesReportTheirTimes) {
  const TempFolder temp;
  const std::string run = temp / "run";
  ASSERT_EQ(TrainInProgram(run, 60, Together({kPpo, {"--roles", "processes"}})), 0)
      << Read(run + ".out");
  ExpectNames(run, Together({kEverywhere, kRollouts, kFresh, kCritic}));
  double generate = 0, reward = 0, speed = 0;
  for (const auto& line : Lines(run + "/metrics.jsonl")) {
    generate += line["time/generate"].get<double>();
    reward += line["time/reward"].get<double>();
    speed = std::max(speed, line["perf/decode_tokens_per_s"].get<double>());
    EXPECT_FALSE(line.contains("actor/generate_us")) << "what travels under this name is no metric";
  }
  EXPECT_GT(generate, 0) << "told a few times a second, so not in every step, but in their sum";
  EXPECT_GT(reward, 0);
  EXPECT_GT(speed, 0);
  const auto summary = nlohmann::json::parse(Read(run + "/summary.json"));
  EXPECT_GT(summary["counters"]["actor/leases"].get<int64_t>(), 0)
      << "what actors and reward workers counted";
  EXPECT_GT(summary["counters"]["reward/groups"].get<int64_t>(), 0);
}

TEST(MetricNamesTest, Dpo) {
  const TempFolder temp;
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    rows += "{\"prompt\":\"" + std::to_string(i) + "+1=\",\"chosen\":\"<answer>" +
            std::to_string(i + 1) + "</answer>\",\"rejected\":\"<answer>0</answer>\"}\n";
  }
  RealFileSystem().WriteFileAtomic(temp / "pairs.jsonl", rows);
  RealFileSystem().WriteFileAtomic(
      temp / "dpo.toml",
      "[run]\nsteps = 3\nthreads = 1\n[model]\nlayers = 1\nhidden = 32\nheads = 2\nkv_heads = "
      "2\nffn = 64\n"
      "max_positions = 64\n[data]\ntrain = \"" +
          (temp / "pairs.jsonl") +
          "\"\n[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 4\nheldout = 4\n"
          "[optimizer]\nlearning_rate = 1e-3\n");
  const CliOutput output = RunPlumb({"train", temp / "dpo.toml", "--out", temp / "run"});
  ASSERT_EQ(output.code, 0) << output.err;
  Names names = {"dpo/loss", "dpo/accuracy", "dpo/margin", "dpo/reward_chosen",
                 "dpo/reward_rejected"};
  for (const std::string& name : kEverywhere) {
    if (name != "policy/loss") names.push_back(name);
  }
  ExpectNames(temp / "run", names);
}

int FreePort() {
  const int s = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  PLUMB_CHECK(bind(s, reinterpret_cast<sockaddr*>(&address), size) == 0);
  PLUMB_CHECK(getsockname(s, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(s);
  return ntohs(address.sin_port);
}

std::string Scrape(int port) {
  const int s = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  std::string text;
  if (connect(s, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (write(s, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
      char buffer[4096];
      for (ssize_t n; (n = read(s, buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<size_t>(n));
    }
  }
  close(s);
  return text;
}

TEST(MetricNamesTest, ThePrometheusEndpointOfARunHasThemAll) {
  const TempFolder temp;
  const std::string run = temp / "run";
  const int port = FreePort();
  const pid_t program =
      StartProgram(TrainLine(run, 100000,
                             Together({kPpo,
                                       {"--set", "metrics.prometheus_port=" + std::to_string(port),
                                        "--set", "run.checkpoint_every=0"}})),
                   run);
  std::string text;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!Has(text, "policy/loss") && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    text = Scrape(port);
  }
  kill(program, SIGKILL);
  waitpid(program, nullptr, 0);
  for (const std::string& name : Together({kEverywhere, kRollouts, kFresh, kCritic})) {
    EXPECT_TRUE(Has(text, " " + name + " of docs/metrics.md\n# TYPE plumb_"))
        << name << " is not in\n"
        << text;
  }
}

}  // namespace
}  // namespace plumb::run::testing
