#include "reward/doors/http_reward.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/net/http_client.h"
#include "common/record/json_text.h"
#include "reward/doors/worker_pool.h"
#include "reward/part/reply.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;
constexpr size_t kMaxDetails = 64;

std::vector<PartScore> All(size_t count, Failure failure, const std::string& why) {
  return std::vector<PartScore>(count, PartScore::Failed(failure, why));
}

class HttpWorker : public Worker {
 public:
  HttpWorker(Url url, HttpOptions options, const HostOptions& host, bool openrlhf, std::string key)
      : url_(std::move(url)),
        options_(std::move(options)),
        host_(host),
        openrlhf_(openrlhf),
        key_(std::move(key)) {}

  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline deadline,
                              bool* broke) override {
    if (client_ == nullptr) client_ = std::make_unique<HttpClient>(url_, options_);
    const size_t count = group.trajectories.size();
    const HttpReply reply =
        client_->Post(openrlhf_ ? OpenRlhfRequest(group, host_) : SlimeRequest(group, 0), deadline);
    *broke = reply.failure != Failure::kNone && reply.failure != Failure::kReported;
    if (reply.failure != Failure::kNone) return All(count, reply.failure, reply.reason);
    std::vector<PartScore> scores = openrlhf_ ? ReadOpenRlhfReply(reply.body, count)
                                              : std::vector{ReadSlimeReply(reply.body, key_)};
    *broke = scores[0].failure == Failure::kBadReply || scores[0].failure == Failure::kWrongCount;
    return scores;
  }

 private:
  const Url url_;
  const HttpOptions options_;
  const HostOptions host_;
  const bool openrlhf_;
  const std::string key_;
  std::unique_ptr<HttpClient> client_;
};

// Numbers of a list that has one for each answer, or one number for all, as a sub-score; anything
// else is left out.
void AddDetails(const std::string& name, const Json& values, std::vector<PartScore>* scores) {
  if (!values.is_number() && (!values.is_array() || values.size() != scores->size())) return;
  for (size_t i = 0; i < scores->size(); ++i) {
    PartScore& score = (*scores)[i];
    const Json& each = values.is_number() ? values : values[i];
    if (!each.is_number() || !score.scored() || score.skipped ||
        score.details.size() >= kMaxDetails)
      continue;
    if (const double value = each.get<double>(); std::isfinite(value))
      score.details.emplace_back(name.substr(0, 100), value);
  }
}

}  // namespace

std::string OpenRlhfRequest(const TrajectoryGroup& group, const HostOptions& host) {
  const std::string prompt = FullPromptText(group, host);
  OrderedJson request = {{"query", OrderedJson::array()},
                         {"prompts", OrderedJson::array()},
                         {"labels", OrderedJson::array()}};
  for (const Trajectory& trajectory : group.trajectories) {
    request["query"].push_back(prompt + trajectory.completion);
    request["prompts"].push_back(prompt);
    request["labels"].push_back(group.lease.prompt.ground_truth);
  }
  return DumpJson(request);
}

std::vector<PartScore> ReadOpenRlhfReply(const std::string& body, size_t count) {
  if (TooDeep(body, 16)) return All(count, Failure::kBadReply, "a reply nested deeper than 16");
  bool not_finite = false;
  const Json reply = ParseLooseJson(body, &not_finite);
  if (!reply.is_object())
    return All(count, Failure::kBadReply, "a reply that is no JSON object: " + Shown(body));
  const auto rewards = reply.find("rewards");
  if (rewards == reply.end() || !rewards->is_array()) {
    return All(count, Failure::kBadReply, "a reply without the list 'rewards': " + Shown(body));
  }
  if (rewards->size() != count) {
    return All(
        count, Failure::kWrongCount,
        "answered " + std::to_string(rewards->size()) + " rewards for " + std::to_string(count));
  }
  if (not_finite) return All(count, Failure::kNotFinite, "answered with NaN or Infinity");
  std::vector<PartScore> scores;
  for (const Json& reward : *rewards) {
    if (!reward.is_number() && !reward.is_null())
      return All(count, Failure::kBadReply, "a reward that is no number: " + Shown(reward.dump()));
    scores.push_back(ScoreFromJson(reward));
  }
  if (const auto it = reply.find("scores"); it != reply.end()) AddDetails("scores", *it, &scores);
  if (const auto it = reply.find("extra_logs"); it != reply.end() && it->is_object()) {
    for (const auto& [name, values] : it->items()) AddDetails(name, values, &scores);
  }
  return scores;
}

std::string SlimeRequest(const TrajectoryGroup& group, size_t index) {
  const Prompt& prompt = group.lease.prompt;
  return DumpJson({{"prompt", PromptJson(prompt)},
                   {"response", group.trajectories[index].completion},
                   {"label", prompt.ground_truth}});
}

PartScore ReadSlimeReply(const std::string& body, const std::string& key) {
  if (TooDeep(body, 16))
    return PartScore::Failed(Failure::kBadReply, "a reply nested deeper than 16");
  bool not_finite = false;
  const Json reply = ParseLooseJson(body, &not_finite);
  if (not_finite) return PartScore::Failed(Failure::kNotFinite, "answered with NaN or Infinity");
  if (reply.is_number()) return ScoreFromJson(reply);
  if (!reply.is_object())
    return PartScore::Failed(Failure::kBadReply, "neither a number nor an object: " + Shown(body));
  const auto value = reply.find(key);
  if (value == reply.end() || !value->is_number()) {
    return PartScore::Failed(Failure::kBadReply, "an object without the number '" + key +
                                                     "' (reply_key): " + Shown(body));
  }
  PartScore score = ScoreFromJson(*value);
  for (const auto& [name, other] : reply.items()) {
    if (name == key || !other.is_number() || score.details.size() >= kMaxDetails) continue;
    if (const double number = other.get<double>(); std::isfinite(number))
      score.details.emplace_back(name.substr(0, 100), number);
  }
  return score;
}

std::unique_ptr<RewardFunction> MakeHttp(const configs::RewardPartConfig& part,
                                         const HostOptions& options) {
  const std::string place = "reward part '" + part.name + "'";
  if (part.api == configs::HttpApi::kNone) {
    throw Error(ErrorCode::kInvalidArgument,
                "kind = \"http\" needs api = \"openrlhf\" or \"slime\"", place);
  }
  if (part.endpoint.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "kind = \"http\" needs endpoint, e.g. http://127.0.0.1:8000/get_reward", place);
  const bool openrlhf = part.api == configs::HttpApi::kOpenRlhf;
  Url url = ParseUrl(part.endpoint);
  if (openrlhf && url.path == "/") url = ParseUrl(url.origin + "/get_reward");
  HttpOptions http;
  http.bearer = KeyFromEnvironment(part.api_key_env);
  PoolOptions pool = WithPart(options, part, /*allow_unsandboxed=*/false).pool;
  pool.peer = "server";
  pool.per_answer = !openrlhf;
  HttpClient(url, http);  // what can never work is an error before the run begins
  const std::string key = part.reply_key.empty() ? "score" : part.reply_key;
  const std::string digest =
      "http:" + NameOf(part.api) + ":" + url.shown + (openrlhf ? "" : ":" + key);
  return std::make_unique<PooledFunction>(
      part.name, digest, pool, [url, http, host = options, openrlhf, key](int) {
        return std::make_unique<HttpWorker>(url, http, host, openrlhf, key);
      });
}

}  // namespace plumb::reward
