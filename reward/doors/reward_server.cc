#include "reward/doors/reward_server.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "reward/doors/zmq_worker.h"
#include "reward/part/file_digest.h"
#include "reward/part/notice.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;
constexpr size_t kMaxAnswers = 65536;
constexpr std::chrono::milliseconds kLongest{std::chrono::hours(24)};

// The group that a request describes. Throws Error(kInvalidArgument) saying what is missing.
// As replay/datasets/rows/row_parser reads it; false for what is none.
bool ReadMessage(const Json& message, Message& out) {
  if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
    return false;
  out.role = message["role"].get<std::string>();
  const Json content = message.value("content", Json());
  Json fields = Json::object();
  if (!content.is_string()) fields["content"] = content;
  for (const auto& [key, value] : message.items()) {
    if (key != "role" && key != "content" && !value.is_null()) fields[key] = value;
  }
  if (content.is_string()) {
    out.content = content.get<std::string>();
  } else if (content.is_array()) {
    for (const Json& part : content) {
      if (!part.is_object() || !part.contains("text") || !part["text"].is_string()) return false;
      out.content += part["text"].get<std::string>();
    }
  } else if (!content.is_null() || fields.size() < 2) {
    return false;
  }
  if (!fields.empty()) out.fields_json = fields.dump();
  return true;
}

TrajectoryGroup GroupOf(const Json& request) {
  const auto refuse = [](const char* why) -> void {
    throw Error(ErrorCode::kInvalidArgument, why);
  };
  TrajectoryGroup group;
  Prompt& prompt = group.lease.prompt;
  const auto text = [&](const char* name) {
    const auto it = request.find(name);
    if (it == request.end() || it->is_null()) return std::string();
    if (!it->is_string())
      throw Error(ErrorCode::kInvalidArgument, std::string("'") + name + "' is no text");
    return it->get<std::string>();
  };
  const auto said = request.find("prompt");
  if (said == request.end()) refuse("a request without 'prompt'");
  if (said->is_string()) {
    prompt.text = said->get<std::string>();
  } else if (said->is_array()) {
    for (const Json& message : *said) {
      if (!ReadMessage(message, prompt.messages.emplace_back()))
        refuse("'prompt' is no list of {role, content}");
    }
  } else {
    refuse("'prompt' is neither text nor a list of messages");
  }
  prompt.ground_truth = text("ground_truth");
  if (const auto extra = request.find("extra"); extra != request.end() && extra->is_object())
    prompt.extra_json = extra->dump();
  const auto completions = request.find("completions");
  if (completions == request.end() || !completions->is_array() || completions->empty())
    refuse("a request without the list 'completions'");
  if (completions->size() > kMaxAnswers) refuse("more than 65536 completions");
  for (const Json& completion : *completions) {
    if (!completion.is_string()) refuse("a completion that is no text");
    Trajectory trajectory;
    trajectory.sample = static_cast<uint32_t>(group.trajectories.size());
    trajectory.completion = completion.get<std::string>();
    group.trajectories.push_back(std::move(trajectory));
  }
  return group;
}

// Every trajectory's tokens, from the request or by `reader`. Throws Error(kInvalidArgument).
void ReadTokens(const Json& request, const TokenReader& reader, TrajectoryGroup& group) {
  const auto tokens = request.find("tokens");
  if (tokens == request.end() || tokens->is_null()) {
    for (Trajectory& t : group.trajectories)
      t.tokens = reader.encode(group.lease.prompt, t.completion);
    return;
  }
  const auto vocabulary = request.find("vocabulary");
  if (vocabulary == request.end() || *vocabulary != reader.vocabulary) {
    throw Error(ErrorCode::kInvalidArgument,
                "the tokens are of another vocabulary than the model's, " + reader.vocabulary +
                    ": send texts alone (tokens=0), or take a model of the policy's family");
  }
  if (!tokens->is_array() || tokens->size() != group.trajectories.size()) {
    throw Error(ErrorCode::kInvalidArgument, "'tokens' is no list with one entry a completion");
  }
  for (size_t i = 0; i < tokens->size(); ++i) {
    for (const Json& id : (*tokens)[i]) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
        throw Error(ErrorCode::kInvalidArgument, "'tokens' has an entry that is no token id");
      }
      group.trajectories[i].tokens.push_back(id.get<int32_t>());
    }
  }
}

}  // namespace

RewardServer::RewardServer(std::vector<ServedPart> parts, const std::string& endpoint,
                           FrameServerOptions options, TokenReader reader)
    : parts_(std::move(parts)), reader_(std::move(reader)) {
  std::string all;
  for (const ServedPart& part : parts_) {
    all += part.function->name() + " " + std::to_string(part.weight) + " " +
           part.function->digest() + "\n";
  }
  digest_ = parts_.size() == 1 && parts_[0].weight == 1 ? parts_[0].function->digest()
                                                        : "sha256:" + TextSha256(all);
  server_ = std::make_unique<FrameServer>(
      endpoint,
      [this](std::string_view request, std::chrono::milliseconds waited) {
        return Answer(request, waited);
      },
      std::move(options));
}

std::string RewardServer::Answer(std::string_view text, std::chrono::milliseconds waited) {
  OrderedJson reply = {{"plumb", kZmqRewardVersion}};
  bool not_finite = false;
  const Json request = TooDeep(text, 64) ? Json() : ParseLooseJson(text, &not_finite);
  const auto refuse = [&](const std::string& why, Failure kind) {
    Notice("refused a request: " + why);
    reply["error"] = why;
    reply["kind"] = FailureName(kind);
    return DumpJson(reply);
  };
  if (!request.is_object()) return refuse("a request that is no JSON object", Failure::kBadReply);
  if (const auto id = request.find("id");
      id != request.end() && id->is_string() && id->get_ref<const std::string&>().size() <= 200) {
    reply["id"] = id->get<std::string>();
  } else {
    return refuse("a request without a text 'id' of at most 200 bytes", Failure::kBadReply);
  }
  if (const auto version = request.find("plumb");
      version == request.end() || *version != kZmqRewardVersion) {
    return refuse("this worker speaks version " + std::to_string(kZmqRewardVersion),
                  Failure::kBadReply);
  }
  std::chrono::milliseconds left = kLongest;
  if (const auto deadline = request.find("deadline_ms");
      deadline != request.end() && deadline->is_number_integer()) {
    left =
        std::chrono::milliseconds(std::min<int64_t>(deadline->get<int64_t>(), kLongest.count())) -
        waited;
    if (left.count() <= 0) return "";
  }
  TrajectoryGroup group;
  try {
    group = GroupOf(request);
    if (reader_.encode) ReadTokens(request, reader_, group);
  } catch (const Error& error) {
    return refuse(error.message(), Failure::kBadReply);
  }

  const Deadline deadline = After(left);
  const size_t count = group.trajectories.size();
  std::vector<OrderedJson> answers(count, OrderedJson(nullptr));
  std::vector<double> sums(count, 0);
  std::vector<PartScore> failed(count);
  for (const ServedPart& part : parts_) {
    const std::string& name = part.function->name();
    std::vector<PartScore> scores;
    try {
      scores = part.function->Score(group, deadline);
    } catch (const std::exception& error) {
      return refuse(name + ": " + error.what(), Failure::kUnavailable);
    }
    if (scores.size() != count)
      return refuse(name + ": returned the wrong number of scores", Failure::kWrongCount);
    for (size_t i = 0; i < count; ++i) {
      PartScore& score = scores[i];
      if (!score.scored()) {
        if (failed[i].scored())
          failed[i] = PartScore::Failed(score.failure, name + ": " + score.reason);
        continue;
      }
      if (score.skipped) continue;
      if (answers[i].is_null()) answers[i] = {{"score", 0.0}, {"scores", OrderedJson::object()}};
      sums[i] += part.weight * score.value;
      answers[i]["scores"][name] = score.value;
      for (const auto& [detail, value] : score.details)
        answers[i]["scores"][name + "." + detail] = value;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (failed[i].scored() && !std::isfinite(sums[i]))
      failed[i] = PartScore::Failed(Failure::kNotFinite, "the weighted sum overflowed");
    if (!failed[i].scored()) {
      answers[i] = {{"error", failed[i].reason}, {"kind", FailureName(failed[i].failure)}};
    } else if (!answers[i].is_null()) {
      answers[i]["score"] = sums[i];
    }
  }
  reply["scores"] = std::move(answers);
  reply["digest"] = digest_;
  return DumpJson(reply);
}

}  // namespace plumb::reward
