#include "replay/datasets/rows/dialogue.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include <simdjson.h>

#include "common/base/text.h"

namespace plumb::replay {
namespace {

constexpr std::string_view kHuman = "\n\nHuman:", kAssistant = "\n\nAssistant:";

// The value of a message's field as JSON; "" where it has none.
std::string Field(const Message& message, std::string_view name) {
  if (message.fields_json.find(name) == std::string::npos) return "";  // nearly always
  simdjson::dom::parser parser;
  simdjson::dom::object fields;
  simdjson::dom::element value;
  if (parser.parse(message.fields_json).get(fields) != simdjson::SUCCESS ||
      fields[name].get(value) != simdjson::SUCCESS)
    return "";
  return simdjson::minify(value);
}

}  // namespace

bool CallsTools(const Message& message) {
  for (const char* name : {"tool_calls", "function_call"}) {
    const std::string calls = Field(message, name);
    if (!calls.empty() && calls != "[]" && calls != "null") return true;
  }
  return false;
}

bool IsLearned(const Message& message) {
  const std::string weight = Field(message, "weight"), train = Field(message, "train");
  return (weight.empty() || std::strtod(weight.c_str(), nullptr) != 0) && train != "false";
}

std::optional<std::vector<Message>> ParseHumanAssistant(std::string_view text) {
  std::vector<Message> turns;
  size_t at = 0;
  while (at < text.size()) {
    const bool human = text.substr(at).starts_with(kHuman),
               assistant = text.substr(at).starts_with(kAssistant);
    // only at the beginning: a turn ends where the next one begins
    if (!human && !assistant) return std::nullopt;
    at += human ? kHuman.size() : kAssistant.size();
    const size_t end = std::min({text.find(kHuman, at), text.find(kAssistant, at), text.size()});
    if (!turns.empty() && turns.back().content.empty()) return std::nullopt;
    turns.push_back({human ? "user" : "assistant", std::string(Trim(text.substr(at, end - at)))});
    at = end;
  }
  if (!turns.empty() && turns.back().content.empty()) turns.pop_back();
  if (turns.empty()) return std::nullopt;
  return turns;
}

std::vector<Message> SharedPrompt(const std::vector<Message>& chosen,
                                  const std::vector<Message>& rejected) {
  const size_t shorter = std::min(chosen.size(), rejected.size());
  size_t same = 0;
  while (same < shorter && chosen[same] == rejected[same]) ++same;
  std::vector<Message> prompt(chosen.begin(), chosen.begin() + static_cast<ptrdiff_t>(same));
  while (!prompt.empty() && prompt.back().role != "user") prompt.pop_back();
  return prompt;
}

}  // namespace plumb::replay
