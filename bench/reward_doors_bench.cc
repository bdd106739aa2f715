// What each front door of a reward adds to a group, over the same rule behind every door: p50, p99 and groups a second.
//
//   reward_doors_bench [groups] [answers]     default: 2000 groups of 8 answers of 400 bytes
//
// One worker, one group at a time, after 50 that are not counted. The rule is the share of key words in an answer; every
// door's scores are compared with the rule's own first, and a door that answers otherwise is not timed. The servers of HTTP
// and ZeroMQ are threads of this process: the figures are those of the door, not of a network.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "reward/notice.h"
#include "reward/reward_server.h"
#include "reward/scorer.h"
#include "tests/testing/http_server.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

// Share of the ground truth's words that occur in the answer: what examples/rewards/keyword_reward.c computes.
double KeyWords(const std::string& answer, const std::string& truth) {
  double words = 0, found = 0;
  for (size_t at = 0; at < truth.size();) {
    const size_t space = std::min(truth.find(' ', at), truth.size());
    if (space > at) {
      ++words;
      found += answer.find(truth.substr(at, space - at)) != std::string::npos;
    }
    at = space + 1;
  }
  return words > 0 ? found / words : 0;
}

constexpr char kPython[] = R"(
import json, sys
for line in sys.stdin:
    r = json.loads(line)
    words = r["ground_truth"].split()
    print(json.dumps({"id": r["id"], "score": sum(w in r["completion"] for w in words) / len(words)}), flush=True)
)";
constexpr char kTrl[] = R"(
def key_words(completions, ground_truth, **kwargs):
    return [sum(w in c for w in t.split()) / len(t.split()) for c, t in zip(completions, ground_truth)]
)";

TrajectoryGroup Group(int answers, uint64_t id) {
  TrajectoryGroup group;
  group.lease.lease_id = id;
  group.lease.prompt.text = "Name three colours of a rainbow and say where they stand in it.";
  group.lease.prompt.ground_truth = "red green violet";
  for (int i = 0; i < answers; ++i) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(i);
    t.completion = std::string(i % 2 ? "red, green and violet" : "red and blue") + " of " + std::to_string(id);
    while (t.completion.size() < 400) t.completion += " more words";
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

bool Measure(const char* door, configs::RewardPartConfig part, int groups, int answers) {
  part.name = "door";
  part.timeout_s = 60;
  configs::RewardConfig config;
  config.parts = {part};
  HostOptions host;
  host.host_command = {PLUMB_REWARD_HOST};
  std::vector<double> us;
  try {
    GroupScorer scorer(config, host);
    double seconds = 0;
    for (int i = -50; i < groups; ++i) {
      TrajectoryGroup group = Group(answers, static_cast<uint64_t>(i + 50));
      const auto start = Clock::now();
      const Outcome outcome = scorer.ScoreGroup(group);
      const std::chrono::duration<double, std::micro> took = Clock::now() - start;
      for (const Trajectory& t : group.trajectories) {
        // The rule in process is another one: it has no key words.
        const double want = part.kind == "contains" ? t.reward : KeyWords(t.completion, group.lease.prompt.ground_truth);
        if (outcome != Outcome::kScored || t.reward != want) {
          std::printf("%-34s NOT TIMED: %s, score %g instead of %g\n", door, t.unscored_reason.c_str(), t.reward, want);
          return false;
        }
      }
      if (i >= 0) us.push_back(took.count()), seconds += took.count() * 1e-6;
    }
    std::sort(us.begin(), us.end());
    std::printf("%-34s p50 %8.1f us   p99 %8.1f us   %8.0f groups/s\n", door, us[us.size() / 2], us[us.size() * 99 / 100],
                static_cast<double>(groups) / seconds);
  } catch (const Error& error) {
    std::printf("%-34s NOT TIMED: %s\n", door, error.what());
    return false;
  }
  std::fflush(stdout);
  return true;
}

int Main(int argc, char** argv) {
  const int groups = argc > 1 ? std::atoi(argv[1]) : 2000, answers = argc > 2 ? std::atoi(argv[2]) : 8;
  if (groups < 100 || answers < 1) {
    std::fprintf(stderr, "usage: reward_doors_bench [groups >= 100] [answers >= 1]\n");
    return 2;
  }
  const plumb::testing::TempFolder folder;
  std::printf("%d groups of %d answers of 400 bytes, one worker, one group at a time\n", groups, answers);
  int failed = 0;
  const auto door = [&](const char* name, const configs::RewardPartConfig& part) { failed += !Measure(name, part, groups, answers); };
  configs::RewardPartConfig part;

  part.kind = "contains", part.args = {"words=red,green,violet"};
  door("rule in process (contains)", part);

  part = {}, part.kind = "plugin", part.path = PLUMB_BENCH_PLUGIN;
  door("plugin (C, host process)", part);

  { std::ofstream(folder / "key_words.py") << kPython; }
  part = {}, part.kind = "program", part.path = "python3", part.args = {folder / "key_words.py"};
  door("program (JSON lines, Python)", part);

  { std::ofstream(folder / "trl.py") << kTrl; }
  part = {}, part.kind = "python", part.path = folder / "trl.py", part.args = {"function=key_words"}, part.memory_mb = 4096;
  door("python (TRL function)", part);

  plumb::testing::HttpServer http([](const plumb::testing::HttpRequest& request) {
    const Json body = Json::parse(request.body);
    Json reply;
    for (size_t i = 0; i < body["query"].size(); ++i) reply["rewards"].push_back(KeyWords(body["query"][i], body["labels"][i]));
    return plumb::testing::HttpOk(reply.dump());
  });
  part = {}, part.kind = "http", part.api = "openrlhf", part.endpoint = http.url();
  door("http (openrlhf, keep-alive)", part);

  const auto answer = [](std::string_view text, std::chrono::milliseconds) {
    const Json request = Json::parse(text);
    Json scores = Json::array();
    for (const auto& completion : request["completions"]) scores.push_back(KeyWords(completion, request["ground_truth"]));
    return Json{{"id", request["id"]}, {"scores", scores}}.dump();
  };
  FrameServer ipc(folder.Ipc("worker"), answer);
  part = {}, part.kind = "zmq", part.endpoint = ipc.endpoint();
  door("zmq (ipc)", part);

  const CurveKeys server = GenerateCurveKeys(), client = GenerateCurveKeys();
  WriteCurveKeys(folder / "server", server);
  WriteCurveKeys(folder / "client", client);
  { std::ofstream(folder / "allowed") << client.public_key << "\n"; }
  FrameServer tcp("tcp://127.0.0.1:*", answer, {.curve = {server, folder / "allowed"}});
  part = {}, part.kind = "zmq", part.endpoint = tcp.endpoint();
  part.server_key = folder / "server.pub", part.client_key = folder / "client.key";
  door("zmq (tcp, CURVE keys)", part);
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace plumb::reward

int main(int argc, char** argv) { return plumb::reward::Main(argc, argv); }
