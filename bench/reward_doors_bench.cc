// What each front door of a reward adds to a group, over the same rule behind every door: p50, p99
// and groups a second.
//
//   reward_doors_bench [groups] [answers]     default: 2000 groups of 8 answers of 400 bytes
//
// One worker, one group at a time, after 50 that are not counted. The rule is the share of key
// words in an answer; every door's scores are compared with the rule's own first, and a door that
// answers otherwise is not timed. The servers of HTTP, ZeroMQ and the judge are threads of this
// process: the figures are those of the door, not of a network. The reward model is a random one of
// two layers of 64 over 64 tokens an answer: what stands around a model, not what one costs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/memory/weights.h"
#include "reward/doors/reward_server.h"
#include "reward/models/model_part.h"
#include "reward/models/reward_model.h"
#include "reward/part/notice.h"
#include "reward/scorer.h"
#include "tests/testing/http_server.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

// Share of the ground truth's words that occur in the answer: what
// examples/rewards/keyword_reward.c computes.
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
    t.completion =
        std::string(i % 2 ? "red, green and violet" : "red and blue") + " of " + std::to_string(id);
    while (t.completion.size() < 400) t.completion += " more words";
    for (int32_t k = 0; k < 64; ++k)
      t.tokens.push_back(
          static_cast<int32_t>((id * 7 + static_cast<uint64_t>(i * 5 + k * k)) % 24));
    t.segments = {{Origin::kPrompt, 0, 16}, {Origin::kPolicy, 16, 64}};
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

// What the door should say to each answer of a group; empty: not compared.
using Wanted = std::function<std::vector<double>(const TrajectoryGroup&)>;

std::vector<double> RuleScores(const TrajectoryGroup& group) {
  std::vector<double> out;
  for (const Trajectory& t : group.trajectories)
    out.push_back(KeyWords(t.completion, group.lease.prompt.ground_truth));
  return out;
}

bool Measure(const char* door, configs::RewardPartConfig part, HostOptions host,
             const Wanted& wanted, int groups, int answers) {
  part.name = "door";
  part.timeout_s = 60;
  configs::RewardConfig config;
  config.parts = {part};
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
      const std::vector<double> want_all = wanted(group);
      for (size_t k = 0; k < group.trajectories.size(); ++k) {
        const Trajectory& t = group.trajectories[k];
        const double want = want_all.empty() ? t.reward : want_all[k];
        if (outcome != Outcome::kScored || t.reward != want) {
          std::printf("%-34s NOT TIMED: %s, score %g instead of %g\n", door,
                      t.unscored_reason.c_str(), t.reward, want);
          return false;
        }
      }
      if (i >= 0) us.push_back(took.count()), seconds += took.count() * 1e-6;
    }
    std::sort(us.begin(), us.end());
    std::printf("%-34s p50 %8.1f us   p99 %8.1f us   %8.0f groups/s\n", door, us[us.size() / 2],
                us[us.size() * 99 / 100], static_cast<double>(groups) / seconds);
  } catch (const Error& error) {
    std::printf("%-34s NOT TIMED: %s\n", door, error.what());
    return false;
  }
  std::fflush(stdout);
  return true;
}

int Main(int argc, char** argv) {
  const int groups = argc > 1 ? std::atoi(argv[1]) : 2000,
            answers = argc > 2 ? std::atoi(argv[2]) : 8;
  if (groups < 100 || answers < 1) {
    std::fprintf(stderr, "usage: reward_doors_bench [groups >= 100] [answers >= 1]\n");
    return 2;
  }
  const plumb::testing::TempFolder folder;
  std::printf("%d groups of %d answers of 400 bytes, one worker, one group at a time\n", groups,
              answers);
  int failed = 0;
  const auto door = [&](const char* name, const configs::RewardPartConfig& part,
                        const Wanted& wanted = RuleScores, const HostOptions& host = {}) {
    failed += !Measure(name, part, host, wanted, groups, answers);
  };
  const Wanted anything = [](const TrajectoryGroup&) { return std::vector<double>(); };
  configs::RewardPartConfig part;

  part.kind = "contains", part.args = {"words=red,green,violet"};
  door("rule in process (contains)", part, anything);  // another rule: it looks for listed words

  part = {}, part.kind = "plugin", part.path = PLUMB_BENCH_PLUGIN;
  door("plugin (C, host process)", part);

  { std::ofstream(folder / "key_words.py") << kPython; }
  part = {}, part.kind = "program", part.path = "python3", part.args = {folder / "key_words.py"};
  door("program (JSON lines, Python)", part);

  { std::ofstream(folder / "trl.py") << kTrl; }
  part = {}, part.kind = "python", part.path = folder / "trl.py",
  part.args = {"function=key_words"}, part.memory_mb = 4096;
  door("python (TRL function)", part);

  plumb::testing::HttpServer http([](const plumb::testing::HttpRequest& request) {
    const Json body = Json::parse(request.body);
    Json reply;
    for (size_t i = 0; i < body["query"].size(); ++i)
      reply["rewards"].push_back(KeyWords(body["query"][i], body["labels"][i]));
    return plumb::testing::HttpOk(reply.dump());
  });
  part = {}, part.kind = "http", part.api = configs::HttpApi::kOpenRlhf, part.endpoint = http.url();
  door("http (openrlhf, keep-alive)", part);

  const auto answer = [](std::string_view text, std::chrono::milliseconds) {
    const Json request = Json::parse(text);
    Json scores = Json::array();
    for (const auto& completion : request["completions"])
      scores.push_back(KeyWords(completion, request["ground_truth"]));
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

  plumb::testing::HttpServer judge([](const plumb::testing::HttpRequest& request) {
    const std::string asked = Json::parse(request.body)["messages"][0]["content"];
    const double score =
        KeyWords(asked.substr(asked.find('|') + 1), asked.substr(0, asked.find('|')));
    return plumb::testing::HttpOk(
        Json{{"choices", {{{"message", {{"role", "assistant"}, {"content", Json(score).dump()}}}}}}}
            .dump());
  });
  part = {}, part.kind = "judge", part.endpoint = judge.url(), part.model = "judge", part.scale = 1;
  part.judge_prompt = "{ground_truth}|{completion}";
  door("judge (an answer a request)", part);

  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::Weights policy({.family = "llama",
                                .layers = 2,
                                .hidden = 64,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_dim = 16,
                                .ffn = 128,
                                .vocab = tokenizer->size(),
                                .max_positions = 128,
                                .tied = true,
                                .eos_tokens = {2}},
                               Device::kCpu, DType::kFloat32);
  policy.Initialise(6, 0.3);
  policy_model::SaveModelDirectory(policy_model::ScalarHeadFrom(policy, 8), folder / "rm", "");
  RealFileSystem().WriteFileAtomic(folder / "rm/tokenizer.json", tokenizer->json());
  part = {}, part.name = "model", part.kind = "reward_model", part.path = folder / "rm";
  const HostOptions models = WithModelParts(*tokenizer);
  const auto reference = MakeFunction(part, false, models);
  const Wanted same = [&](const TrajectoryGroup& group) {
    std::vector<double> out;
    for (const PartScore& score : reference->Score(group, After(std::chrono::seconds(60))))
      out.push_back(score.value);
    return out;
  };
  door("reward model in process (tiny)", part, same, models);

  std::vector<ServedPart> served;
  served.push_back({MakeFunction(part, false, models), 1.0});
  RewardServer worker(std::move(served), folder.Ipc("model"), {},
                      {.vocabulary = VocabularyDigest(*tokenizer),
                       .encode = [](const Prompt&, const std::string&) -> std::vector<int32_t> {
                         throw Error(ErrorCode::kInvalidArgument, "tokens come with the request");
                       }});
  part = {}, part.kind = "zmq", part.endpoint = worker.endpoint(), part.args = {"tokens=1"};
  door("reward model over zmq (tiny, ipc)", part, same, models);
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace plumb::reward

int main(int argc, char** argv) { return plumb::reward::Main(argc, argv); }
