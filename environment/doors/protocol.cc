#include "environment/doors/protocol.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;
constexpr int kDepth = 64;

[[noreturn]] void Malformed(const std::string& what, std::string_view line = {}) {
  throw Error(ErrorCode::kCorruption, line.empty() ? what : what + ": " + Shown(line));
}

OrderedJson Read(std::string_view line, const std::string& what) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
  if (TooDeep(line, kDepth)) Malformed(what + " nested deeper than 64", line);
  OrderedJson value = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    bool not_finite = false;
    if (ParseLooseJson(line, &not_finite).is_object() && not_finite)
      Malformed(what + " with NaN or Infinity", line);
    Malformed(what + " that is no JSON object", line);
  }
  return value;
}

// The text behind `key`, "" where there is none or null.
std::string TextOf(const OrderedJson& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return "";
  if (!it->is_string()) Malformed("a reply whose \"" + std::string(key) + "\" is no text");
  return it->get<std::string>();
}

bool FlagOf(const OrderedJson& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return false;
  if (!it->is_boolean())
    Malformed("a reply whose \"" + std::string(key) + "\" is neither true nor false");
  return it->get<bool>();
}

Message MessageOf(OrderedJson value) {
  if (!value.is_object() || !value.contains("role") || !value["role"].is_string())
    Malformed("a reply with a message without a role");
  Message message;
  message.role = value["role"].get<std::string>();
  value.erase("role");
  if (value.contains("content") && value["content"].is_string()) {
    message.content = value["content"].get<std::string>();
    value.erase("content");
  }
  for (auto it = value.begin(); it != value.end();)
    it = it->is_null() && it.key() != "content" ? value.erase(it) : std::next(it);
  if (!value.empty()) message.fields_json = DumpJson(value);
  return message;
}

}  // namespace

std::string RequestLine(const PeerRequest& request, uint64_t id) {
  OrderedJson out = {{"id", id}};
  switch (request.ask) {
    case Ask::kBegin: {
      out["call"] = "begin";
      out["episode"] = request.episode;
      out["prompt"] = PromptJson(*request.prompt);
      out["ground_truth"] = request.prompt->ground_truth;
      out["sample"] = request.sample;
      std::string line = DumpJson(out);
      line.pop_back();
      return line + ",\"extra\":" + ExtraJson(*request.prompt) + "}";  // as it is
    }
    case Ask::kAct: {
      out["call"] = "act";
      out["episode"] = request.episode;
      out["text"] = request.text;
      out["content"] = request.content;
      OrderedJson calls = OrderedJson::array();
      for (const ToolCall& call : request.calls) {
        calls.push_back({{"id", call.id},
                         {"name", call.name},
                         {"arguments", OrderedJson::parse(call.arguments, nullptr, false)}});
      }
      out["calls"] = std::move(calls);
      out["last"] = request.last;
      return DumpJson(out);
    }
    case Ask::kEnd: out["call"] = "end"; out["episode"] = request.episode;
  }
  return DumpJson(out);
}

PeerReply ReadReply(std::string_view line, uint64_t id, size_t calls) {
  const OrderedJson reply = Read(line, "a reply");
  const auto number = reply.find("id");
  if (number == reply.end() || !number->is_number_unsigned() || number->get<uint64_t>() != id)
    Malformed("a reply without the id " + std::to_string(id) + " of its request", line);
  PeerReply out;
  out.error = TextOf(reply, "error");
  if (reply.contains("error") && out.error.empty()) out.error = "it gave no reason";
  if (!out.error.empty()) return out;
  out.text = TextOf(reply, "text");
  if (const std::string said = TextOf(reply, "observation"); !said.empty())
    out.messages.push_back({"user", said});
  if (const auto messages = reply.find("messages"); messages != reply.end()) {
    if (!messages->is_array()) Malformed("a reply whose \"messages\" is no list", line);
    for (const OrderedJson& message : *messages) out.messages.push_back(MessageOf(message));
  }
  if (const auto results = reply.find("results"); results != reply.end() && !results->is_null()) {
    if (!results->is_array()) Malformed("a reply whose \"results\" is no list", line);
    for (const OrderedJson& result : *results) {
      if (result.is_string()) {
        out.results.push_back({result.get<std::string>()});
      } else if (result.is_object()) {
        out.results.push_back({TextOf(result, "content"), FlagOf(result, "failed")});
      } else {
        Malformed("a reply with a result that is neither a text nor an object", line);
      }
    }
  }
  if (out.results.size() != calls) {
    Malformed("a reply with " + std::to_string(out.results.size()) + " results for " +
                  std::to_string(calls) + " calls",
              line);
  }
  if (const auto reward = reply.find("reward"); reward != reply.end() && !reward->is_null()) {
    if (reward->is_boolean()) {
      out.reward = reward->get<bool>() ? 1 : 0;
    } else if (reward->is_number() && std::isfinite(reward->get<double>())) {
      out.reward = reward->get<double>();
    } else {
      Malformed("a reply whose \"reward\" is no finite number", line);
    }
  }
  out.done = FlagOf(reply, "done");
  out.failed = FlagOf(reply, "failed");
  return out;
}

Greeting ReadGreeting(std::string_view line) {
  const OrderedJson hello = Read(line, "a greeting");
  Greeting out;
  if (hello.contains("error")) {
    out.error =
        hello["error"].is_string() ? hello["error"].get<std::string>() : "it gave no reason";
    return out;
  }
  if (!FlagOf(hello, "ready")) Malformed("a greeting without {\"ready\":true}", line);
  if (const auto tools = hello.find("tools"); tools != hello.end() && !tools->is_null())
    out.tools = DumpJson(*tools);
  return out;
}

}  // namespace plumb::environment
