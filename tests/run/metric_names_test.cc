// The names of docs/metrics.md that people look for (COMPATIBILITY section 4) are there: in
// metrics.jsonl, in TensorBoard's event files and at the Prometheus endpoint, for PPO, GRPO with
// the log-probs computed again, DPO and a reward model; in one process and in several. And every
// name that such a run writes has a row in docs/metrics.md.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;
using Names = std::vector<std::string>;

const Names kEverywhere = {"policy/loss",
                           "optim/lr",
                           "optim/grad_norm",
                           "optim/skipped",
                           "time/train",
                           "time/checkpoint",
                           "time/step",
                           "perf/mfu",
                           "perf/tokens_per_s",
                           "perf/peak_memory_gb",
                           "time/checkpoint_wait",
                           "perf/product_tflops",
                           "perf/train_tokens_per_s"};
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

// A name of docs/metrics.md as a pattern: what stands in <> may be anything but nothing.
bool Matches(const std::string& pattern, const std::string& name) {
  const size_t open = pattern.find('<');
  if (open == std::string::npos) return pattern == name;
  const std::string rest = pattern.substr(pattern.find('>', open) + 1);
  if (name.compare(0, open, pattern, 0, open) != 0) return false;
  for (size_t end = open + 1; end <= name.size(); ++end) {
    if (Matches(rest, name.substr(end))) return true;
  }
  return false;
}

// What the first columns of the tables name, those of "What to look at first" excepted.
std::vector<std::string> DocumentedNames() {
  std::istringstream page(Read(plumb::testing::SourcePath("docs/metrics.md")));
  std::vector<std::string> out;
  bool rows = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("| name |")) rows = true;
    if (!line.starts_with("|")) rows = false;
    if (!rows) continue;
    const std::string names = line.substr(0, line.find(" | "));
    for (size_t at = 0; (at = names.find('`', at)) != std::string::npos;) {
      const size_t end = names.find('`', at + 1);
      out.push_back(names.substr(at + 1, end - at - 1));
      at = end + 1;
    }
  }
  return out;
}

TEST(MetricNamesTest, PatternsOfTheDocumentation) {
  EXPECT_TRUE(Matches("reward/<part>/mean", "reward/a/mean"));
  EXPECT_FALSE(Matches("reward/<part>/mean", "reward/mean"));
  EXPECT_FALSE(Matches("reward/<part>/mean", "reward/a/means"));
  EXPECT_TRUE(Matches("reward/failed/<part>/<kind>", "reward/failed/a/timeout"));
  EXPECT_FALSE(Matches("reward/failed/<part>/<kind>", "reward/failed/a"));
  EXPECT_GT(DocumentedNames().size(), 80u);
}

// Every name in metrics.jsonl has a row in docs/metrics.md.
void ExpectRows(const std::string& run) {
  static const std::vector<std::string> rows = DocumentedNames();
  std::set<std::string> names;
  for (const auto& line : Lines(run + "/metrics.jsonl")) {
    for (const auto& [name, value] : line.items()) names.insert(name);
  }
  names.erase("step");
  names.erase("wall_s");
  EXPECT_GT(names.size(), 10u);
  for (const std::string& name : names) {
    EXPECT_TRUE(std::any_of(rows.begin(), rows.end(),
                            [&](const std::string& row) { return Matches(row, name); }))
        << name << " is written and has no row in docs/metrics.md";
  }
}

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
  ExpectRows(run);
}

// What the event files have besides numbers: texts, and the run's row of the table.
void ExpectTextAndSession(const std::string& run, const std::string& algorithm, bool texts) {
  std::string events;
  for (const auto& file : std::filesystem::directory_iterator(run + "/tensorboard"))
    events += Read(file.path());
  EXPECT_EQ(Has(events, "**Prompt**"), texts);
  EXPECT_TRUE(Has(events, "_hparams_/session_start_info"));
  EXPECT_TRUE(Has(events, "algorithm.name\x12" +
                              std::string(1, static_cast<char>(algorithm.size() + 2)) + "\x1a" +
                              std::string(1, static_cast<char>(algorithm.size())) + algorithm));
  EXPECT_TRUE(Has(events, "_hparams_/session_end_info"));
}

TEST(MetricNamesTest, Ppo) {
  const TempFolder temp;
  const CliOutput output = Train(temp / "run", 3, kPpo);
  ASSERT_EQ(output.code, 0) << output.err;
  ExpectNames(temp / "run", Together({kEverywhere, kRollouts, kFresh, kCritic}));
  ExpectTextAndSession(temp / "run", "ppo", true);
  const auto lines = Lines(temp / "run/metrics.jsonl");
  // Numbers, not only names.
  EXPECT_GT(lines[1]["time/generate"].get<double>(), 0);
  EXPECT_GT(lines[1]["time/reward"].get<double>(), 0);
  EXPECT_GT(lines[1]["perf/decode_tokens_per_s"].get<double>(), 0);
  EXPECT_GT(lines[1]["time/checkpoint_wait"].get<double>(), 0) << "a checkpoint after every step";
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

// Three steps on pairs; the run's folder.
std::string TrainOnPairs(const TempFolder& temp, const std::string& algorithm,
                         const std::string& more = "") {
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
          (temp / "pairs.jsonl") + "\"\n[algorithm]\nname = \"" + algorithm +
          "\"\n[preference]\nbatch = 4\nheldout = 4\n" + more +
          "[optimizer]\nlearning_rate = 1e-3\n[eval]\nevery = 2\n");
  const CliOutput output = RunPlumb({"train", temp / "dpo.toml", "--out", temp / "run"});
  EXPECT_EQ(output.code, 0) << output.err;
  return temp / "run";
}

Names OfPairs(const std::string& room) {
  Names names;
  for (const char* word : {"loss", "accuracy", "margin", "reward_chosen", "reward_rejected"})
    names.push_back(room + "/" + word);
  for (const std::string& name : kEverywhere) {
    if (name != "policy/loss") names.push_back(name);
  }
  return names;
}

TEST(MetricNamesTest, Dpo) {
  const TempFolder temp;
  const std::string run = TrainOnPairs(temp, "dpo");
  ExpectNames(run, OfPairs("dpo"));
  ExpectTextAndSession(run, "dpo", false);
  const auto eval = nlohmann::json::parse(Read(run + "/summary.json"))["eval"];
  EXPECT_TRUE(eval["after"]["accuracy_se"].is_number());
  for (const char* when : {"before", "after"}) {
    EXPECT_NEAR(
        eval[when]["reward_chosen"].get<double>() - eval[when]["reward_rejected"].get<double>(),
        eval[when]["reward"].get<double>(), 1e-9);
  }
  EXPECT_TRUE(Lines(run + "/metrics.jsonl")[1]["eval/reward_chosen"].is_number());
  // The evaluation after the last step follows the last line; TensorBoard has it all the same.
  EXPECT_FALSE(Lines(run + "/metrics.jsonl").back().contains("eval/accuracy"));
  const std::string page = Read(run + "/report.html");
  for (const char* said : {"<b>dpo</b>", "new model of 1 layer", "dpo.toml", " UTC", "Plumb 0.",
                           "held-out pairs ranked right", "\"metric\":\"dpo/reward_rejected\"",
                           "\"metric\":\"eval/margin\""})
    EXPECT_TRUE(Has(page, said)) << said;
}

TEST(MetricNamesTest, KtoAndRewardModel) {
  const TempFolder kto, reward_model;
  ExpectNames(TrainOnPairs(kto, "dpo", "loss = \"kto\"\n"), OfPairs("dpo"));
  ExpectNames(TrainOnPairs(reward_model, "reward_model"), OfPairs("rm"));
  for (const auto* run : {&kto, &reward_model}) {
    const auto eval = nlohmann::json::parse(Read(*run / "run/summary.json"))["eval"]["after"];
    EXPECT_NEAR(eval["reward_chosen"].get<double>() - eval["reward_rejected"].get<double>(),
                eval["reward"].get<double>(), 1e-9);
  }
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
  EXPECT_TRUE(
      Has(Read(run + ".out"), "metrics: http://127.0.0.1:" + std::to_string(port) + "/metrics\n"))
      << "said at the start: " << Read(run + ".out");
  for (const std::string& name : Together({kEverywhere, kRollouts, kFresh, kCritic})) {
    EXPECT_TRUE(Has(text, " " + name + " of docs/metrics.md\n# TYPE plumb_"))
        << name << " is not in\n"
        << text;
  }
}

}  // namespace
}  // namespace plumb::run::testing
