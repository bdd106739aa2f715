#include "run/roles/cluster/welcome.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "common/base/json/strict_json.h"
#include "run/session/built.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 2;  // 2: beats speak of run.relay
constexpr size_t kMaxKeys = Roster::kMaxMembers, kMaxText = 512;
constexpr int kMaxPort = 65535;

Json Read(std::string_view text, const std::string& what) {
  Json json = ParseStrictJson(text, what);
  const auto format = json.find("format");
  if (!json.is_object() || format == json.end() || !format->is_number_integer() ||
      format->get<int64_t>() != kFormat) {
    throw Error(ErrorCode::kConflict,
                "the other side speaks another form of cluster messages: head and roles have to be "
                "of one build of Plumb",
                what);
  }
  return json;
}

// What nlohmann throws for a field that is missing or of another kind.
template <class Make>
auto From(std::string_view text, const std::string& what, const Make& make) {
  const Json json = Read(text, what);
  try {
    return make(json);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::kCorruption, std::string("malformed: ") + e.what(), what);
  }
}

MemberKind KindOf(const Json& json) {
  const auto kind = FindMemberKind(json.at("role").get<std::string>());
  if (!kind) throw Error(ErrorCode::kCorruption, "a role of this kind does not join", "cluster");
  return *kind;
}

int PortOf(const Json& ports, const char* name) {
  const int64_t port = ports.at(name).get<int64_t>();
  if (port < 1 || port > kMaxPort)
    throw Error(ErrorCode::kCorruption, "a port that is none", "the welcome");
  return static_cast<int>(port);
}

std::string Short(const Json& text) {
  std::string value = text.get<std::string>();
  if (value.size() > kMaxText)
    throw Error(ErrorCode::kCorruption, "a text of " + std::to_string(value.size()) + " bytes",
                "a beat");
  return value;
}

std::string TextOf(const Json& json, const char* name) { return Short(json.at(name)); }

std::vector<std::string> TextsOf(const Json& json, const char* name, size_t most) {
  std::vector<std::string> texts;
  for (const Json& each : json.at(name)) {
    if (texts.size() == most)
      throw Error(ErrorCode::kCorruption, "more than " + std::to_string(most) + " " + name,
                  "a beat");
    texts.push_back(Short(each));
  }
  return texts;
}

Json ToJson(const RelayWord& word) {
  Json places = Json::array();
  for (const weight_wire::Place& place : word.places)
    places.push_back({{"name", place.name}, {"endpoint", place.endpoint}, {"key", place.key}});
  return {{"state", static_cast<int>(word.state)},
          {"places", std::move(places)},
          {"keys", word.keys},
          {"below", word.below}};
}

RelayWord RelayWordOf(const Json& json) {
  RelayWord word;
  const int state = json.at("state").get<int>();
  if (state < 0 || state > static_cast<int>(RelayState::kUnreachable) ||
      json.at("places").size() > RelayWord::kMaxPlaces)
    throw Error(ErrorCode::kCorruption, "a word about weights that is none", "a beat");
  word.state = static_cast<RelayState>(state);
  for (const Json& place : json.at("places")) {
    word.places.push_back({.name = TextOf(place, "name"),
                           .endpoint = TextOf(place, "endpoint"),
                           .key = TextOf(place, "key")});
  }
  word.keys = TextsOf(json, "keys", kMaxKeys);
  word.below = json.at("below").get<int64_t>();
  return word;
}

}  // namespace

std::string EncodeJoin(const JoinRequest& request) {
  return Json{{"format", kFormat},
              {"role", NameOf(request.member.kind)},
              {"name", request.member.name},
              {"epoch", request.member.epoch},
              {"machine", request.member.machine},
              {"build", request.build},
              {"recipe", request.recipe}}
      .dump();
}

JoinRequest DecodeJoin(std::string_view text) {
  return From(text, "a request to join", [](const Json& json) {
    return JoinRequest{.member = {.name = json.at("name").get<std::string>(),
                                  .kind = KindOf(json),
                                  .epoch = json.at("epoch").get<uint64_t>(),
                                  .machine = json.at("machine").get<std::string>().substr(0, 200)},
                       .build = json.at("build").get<std::string>(),
                       .recipe = json.at("recipe").get<std::string>()};
  });
}

std::string EncodeWelcome(const Welcome& welcome) {
  Json files = Json::array(), paths = Json::array();
  for (const RoleFile& file : welcome.files.files) {
    files.push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.digest}, {"runs", file.runs}});
  }
  for (const RolePath& path : welcome.files.paths)
    paths.push_back({{"option", path.option}, {"name", path.name}});
  return Json{{"format", kFormat},
              {"life", welcome.life},
              {"run_id", welcome.run_id},
              {"recipe", welcome.recipe},
              {"recipe_digest", welcome.recipe_digest},
              {"model_digest", welcome.model_digest},
              {"files", std::move(files)},
              {"paths", std::move(paths)},
              {"ports",
               {{"leases", welcome.ports.leases},
                {"weights", welcome.ports.weights},
                {"groups", welcome.ports.groups},
                {"scores", welcome.ports.scores}}},
              {"beat_ms", welcome.beat_ms}}
      .dump();
}

Welcome DecodeWelcome(std::string_view text) {
  return From(text, "the head's welcome", [](const Json& json) {
    Welcome welcome{.life = json.at("life").get<std::string>(),
                    .run_id = json.at("run_id").get<std::string>(),
                    .recipe = json.at("recipe").get<std::string>(),
                    .recipe_digest = json.at("recipe_digest").get<std::string>(),
                    .model_digest = json.at("model_digest").get<std::string>(),
                    .files = {},
                    .ports = {},
                    .beat_ms = json.at("beat_ms").get<int64_t>()};
    for (const Json& file : json.at("files")) {
      welcome.files.files.push_back({.name = file.at("name").get<std::string>(),
                                     .path = {},
                                     .bytes = file.at("bytes").get<uint64_t>(),
                                     .digest = file.at("sha256").get<std::string>(),
                                     .runs = file.at("runs").get<bool>()});
      CheckRoleFileName(welcome.files.files.back().name);
    }
    for (const Json& path : json.at("paths")) {
      welcome.files.paths.push_back(
          {path.at("option").get<std::string>(), path.at("name").get<std::string>()});
    }
    const Json& ports = json.at("ports");
    welcome.ports = {.leases = PortOf(ports, "leases"),
                     .weights = PortOf(ports, "weights"),
                     .groups = PortOf(ports, "groups"),
                     .scores = PortOf(ports, "scores")};
    if (welcome.beat_ms < 1 || welcome.beat_ms > 3'600'000)
      throw Error(ErrorCode::kCorruption, "a beat of " + std::to_string(welcome.beat_ms) + " ms",
                  "the head's welcome");
    return welcome;
  });
}

uint64_t SumOf(const RelayWord& word) {
  return std::max<uint64_t>(1, HashBytes(ToJson(word).dump()));
}

std::string EncodeBeat(const BeatReply& reply) {
  return Json{{"format", kFormat},
              {"life", reply.life},
              {"known", reply.known},
              {"ended", reply.ended},
              {"relay", reply.relay ? ToJson(*reply.relay) : Json(nullptr)}}
      .dump();
}

BeatReply DecodeBeat(std::string_view text) {
  return From(text, "the head's answer to a beat", [](const Json& json) {
    BeatReply reply{.life = json.at("life").get<std::string>(),
                    .known = json.at("known").get<bool>(),
                    .ended = json.at("ended").get<bool>(),
                    .relay = {}};
    const Json& relay = json.at("relay");
    if (!relay.is_null()) reply.relay = RelayWordOf(relay);
    return reply;
  });
}

std::string EncodeWho(const Who& who) {
  Json json = {{"format", kFormat}, {"name", who.name}, {"epoch", who.epoch}, {"relay", nullptr}};
  if (who.relay) {
    json["relay"] = {{"endpoint", who.relay->endpoint},
                     {"key", who.relay->key},
                     {"left", who.relay->left},
                     {"heard", who.relay->heard}};
  }
  return json.dump();
}

Who DecodeWho(std::string_view text) {
  return From(text, "a role's word", [](const Json& json) {
    Who who{json.at("name").get<std::string>(), json.at("epoch").get<uint64_t>(), {}};
    const Json& relay = json.at("relay");
    if (relay.is_null()) return who;
    who.relay = {.endpoint = TextOf(relay, "endpoint"),
                 .key = TextOf(relay, "key"),
                 .left = TextsOf(relay, "left", kMaxKeys),
                 .heard = relay.at("heard").get<uint64_t>()};
    return who;
  });
}

std::string EncodeFileQuestion(const FileQuestion& question) {
  return Json{{"format", kFormat}, {"role", NameOf(question.kind)}, {"name", question.name}}.dump();
}

FileQuestion DecodeFileQuestion(std::string_view text) {
  return From(text, "a question for a file", [](const Json& json) {
    return FileQuestion{KindOf(json), json.at("name").get<std::string>()};
  });
}

std::string BuildName() { return BuiltVersion() + " (" + BuiltCommit() + ")"; }

}  // namespace plumb::run
