#include "reward/doors/zmq_worker.h"

#include <random>

#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "reward/part/notice.h"
#include "reward/part/reply.h"

namespace plumb::reward {
namespace {

using std::chrono::milliseconds;
constexpr size_t kMaxReply = size_t{16} << 20;

std::vector<PartScore> All(size_t count, Failure failure, const std::string& why) {
  return std::vector<PartScore>(count, PartScore::Failed(failure, why));
}

// Nobody can answer a request that was never asked: ids begin with 128 random bits of this
// connection.
std::string RandomPrefix() {
  std::random_device random;
  char text[40];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x-", random(), random(), random(), random());
  return text;
}

class ZmqWorker : public Worker {
 public:
  ZmqWorker(std::string part, std::string endpoint, FrameClientOptions options,
            std::string vocabulary)
      : part_(std::move(part)),
        endpoint_(std::move(endpoint)),
        options_(std::move(options)),
        vocabulary_(std::move(vocabulary)),
        prefix_(RandomPrefix()) {}

  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline deadline,
                              bool* broke) override {
    const size_t count = group.trajectories.size();
    if (client_ == nullptr) client_ = std::make_unique<FrameClient>(endpoint_, options_);
    const std::string id = prefix_ + std::to_string(++next_);
    *broke = true;
    bool asked = false;
    for (;;) {
      if (!asked) {
        const auto left =
            std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
        if (!client_->Send(ZmqRequest(group, part_, id, left, vocabulary_), deadline)) {
          return Gone(count, Failure::kUnavailable,
                      "no worker at " + endpoint_ + ": " + client_->State());
        }
        asked = true;
      }
      std::string text;
      const auto got = client_->Receive(&text, std::min(deadline, After(milliseconds(100))));
      if (got == FrameClient::Got::kMessage) {
        bool stray = false;
        std::vector<PartScore> scores = ReadZmqReply(text, id, count, &stray);
        if (stray) {
          Stray();
          continue;
        }
        // A worker that speaks nonsense counts as broken; one that says that it could not score
        // does not.
        *broke = !scores.empty() && (scores[0].failure == Failure::kBadReply ||
                                     scores[0].failure == Failure::kWrongCount);
        return scores;
      }
      if (got == FrameClient::Got::kGarbage) Stray();
      const std::string state = client_->State();
      if (std::chrono::steady_clock::now() >= deadline) {
        if (state != "connected")
          return Gone(count, Failure::kUnavailable,
                      "the worker at " + endpoint_ + " left unanswered: " + state);
        return Gone(count, Failure::kTimeout,
                    "no answer from " + endpoint_ + " within its deadline");
      }
      if (got == FrameClient::Got::kDeadline && state != "connected") {
        // It went away with our question: ask whoever comes next.
        client_->Reset();
        asked = false;
      }
    }
  }

 private:
  // A new connection: what the old one still gets is never read as the answer to something else.
  std::vector<PartScore> Gone(size_t count, Failure failure, const std::string& why) {
    client_->Reset();
    return All(count, failure, why);
  }

  void Stray() {
    if (++strays_ == 1 || strays_ % 1000 == 0) {
      Notice("reward '" + part_ + "': " + std::to_string(strays_) + " messages from " + endpoint_ +
             " answer nothing that was asked; ignored");
    }
  }

  const std::string part_, endpoint_;
  const FrameClientOptions options_;
  const std::string vocabulary_, prefix_;
  std::unique_ptr<FrameClient> client_;
  uint64_t next_ = 0, strays_ = 0;
};

}  // namespace

std::string ZmqRequest(const TrajectoryGroup& group, const std::string& part, const std::string& id,
                       milliseconds left, const std::string& vocabulary) {
  const Prompt& prompt = group.lease.prompt;
  nlohmann::ordered_json request = {{"plumb", kZmqRewardVersion},
                                    {"id", id},
                                    {"part", part},
                                    {"deadline_ms", std::max<int64_t>(0, left.count())},
                                    {"prompt", PromptJson(prompt)},
                                    {"ground_truth", prompt.ground_truth}};
  auto& completions = request["completions"] = nlohmann::ordered_json::array();
  for (const Trajectory& trajectory : group.trajectories)
    completions.push_back(trajectory.completion);
  if (!vocabulary.empty()) {
    request["vocabulary"] = vocabulary;
    auto& tokens = request["tokens"] = nlohmann::ordered_json::array();
    for (const Trajectory& trajectory : group.trajectories) tokens.push_back(trajectory.tokens);
  }
  std::string text = DumpJson(request);
  text.pop_back();
  return text + ",\"extra\":" + ExtraJson(prompt) + "}";
}

std::vector<PartScore> ReadZmqReply(const std::string& text, const std::string& id, size_t count,
                                    bool* stray) {
  *stray = false;
  if (TooDeep(text, 16)) return All(count, Failure::kBadReply, "a reply nested deeper than 16");
  bool not_finite = false;
  const nlohmann::json reply = ParseLooseJson(text, &not_finite);
  if (!reply.is_object())
    return All(count, Failure::kBadReply, "a reply that is no JSON object: " + Shown(text));
  const auto answers = reply.find("id");
  if (answers == reply.end() || !answers->is_string() || answers->get<std::string>() != id) {
    *stray = true;
    return {};
  }
  if (reply.contains("error")) return std::vector<PartScore>(count, ScoreFromJson(reply));
  const auto scores = reply.find("scores");
  if (scores == reply.end() || !scores->is_array()) {
    return All(count, Failure::kBadReply, "a reply without the list 'scores': " + Shown(text));
  }
  if (scores->size() != count) {
    return All(
        count, Failure::kWrongCount,
        "answered " + std::to_string(scores->size()) + " scores for " + std::to_string(count));
  }
  if (not_finite) return All(count, Failure::kNotFinite, "answered with NaN or Infinity");
  std::string digest;
  if (const auto said = reply.find("digest"); said != reply.end() && said->is_string())
    digest = Shown(said->get<std::string>(), 200);
  std::vector<PartScore> out;
  for (const auto& score : *scores) {
    out.push_back(ScoreFromJson(score));
    out.back().digest = digest;
  }
  return out;
}

std::unique_ptr<RewardFunction> MakeZmq(const configs::RewardPartConfig& part,
                                        const HostOptions& options) {
  const std::string place = "reward part '" + part.name + "'";
  if (part.endpoint.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "kind = \"zmq\" needs endpoint, e.g. tcp://127.0.0.1:5555", place);
  if (part.server_key.empty() != part.client_key.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "server_key and client_key belong together: name both or none", place);
  }
  bool tokens = false;
  for (const std::string& arg : part.args) {
    if (arg != "tokens=0" && arg != "tokens=1") {
      throw Error(ErrorCode::kInvalidArgument,
                  "args has '" + arg +
                      "'; kind = \"zmq\" takes tokens=1 (send the policy's tokens, for a "
                      "worker that runs a model) and tokens=0",
                  place);
    }
    tokens = arg == "tokens=1";
  }
  if (tokens && options.vocabulary.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "tokens=1 needs a policy's tokenizer, and here there is none", place);
  }
  PoolOptions pool = WithPart(options, part, /*allow_unsandboxed=*/false).pool;
  pool.peer = "worker";
  FrameClientOptions client;
  client.max_message_bytes = kMaxReply;
  if (!part.server_key.empty()) {
    client.curve.server_key = ReadPublicKey(part.server_key);
    client.curve.own = ReadCurveKeys(part.client_key);
  }
  FrameClient(part.endpoint, client);  // what can never work is an error before the run begins
  const std::string identity =
      part.endpoint + (client.curve.empty() ? "" : " key " + client.curve.server_key);
  return std::make_unique<PooledFunction>(
      part.name, "zmq:" + identity, pool,
      [part, client, vocabulary = tokens ? options.vocabulary : ""](int) {
        return std::make_unique<ZmqWorker>(part.name, part.endpoint, client, vocabulary);
      });
}

}  // namespace plumb::reward
