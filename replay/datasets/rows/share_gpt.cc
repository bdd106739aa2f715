#include "replay/datasets/rows/share_gpt.h"

#include <array>
#include <string>
#include <utility>

#include "replay/datasets/rows/row_columns.h"
#include "replay/datasets/rows/row_parser.h"

namespace plumb::replay {
namespace {

namespace dom = simdjson::dom;

constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kRoles = {{
    {"human", "user"},
    {"user", "user"},
    {"gpt", "assistant"},
    {"assistant", "assistant"},
    {"bot", "assistant"},
    {"model", "assistant"},
    {"chatgpt", "assistant"},
    {"system", "system"},
    {"developer", "developer"},
    {"tool", "tool"},
    {"observation", "tool"},
    {"function_response", "tool"},
    {"function", "function"},
    {"function_call", "assistant"},
}};

[[noreturn]] void Refuse(std::string_view column, const std::string& what) {
  throw RowProblem{"bad_messages", what + " in '" + std::string(column) + "'"};
}

// {"name": ..., "arguments": ...} or a list of them, as an assistant's message holds calls: without
// content.
std::string ToolCalls(std::string_view value, std::string_view column) {
  dom::parser parser;
  dom::element said;
  const bool json = parser.parse(value.data(), value.size()).get(said) == simdjson::SUCCESS;
  std::string calls;
  const auto add = [&](dom::element call) {
    std::string_view name;
    if (call["name"].get(name) != simdjson::SUCCESS) return false;
    calls += (calls.empty() ? "" : ",") + std::string("{\"type\":\"function\",\"function\":") +
             std::string(simdjson::minify(call)) + "}";
    return true;
  };
  bool good = json;
  if (json && said.is_array()) {
    for (const dom::element call : dom::array(said)) good = good && add(call);
  } else if (json) {
    good = add(said);
  }
  if (!good || calls.empty()) {
    Refuse(column, "a function_call whose value is no JSON {\"name\": ..., \"arguments\": ...}");
  }
  return "{\"content\":null,\"tool_calls\":[" + calls + "]";
}

void AppendTurn(dom::element item, std::string_view column, std::vector<Message>& messages) {
  std::string_view from, value;
  if (item["from"].get(from) != simdjson::SUCCESS ||
      (item["value"].get(value) != simdjson::SUCCESS &&
       item["content"].get(value) != simdjson::SUCCESS)) {
    Refuse(column, "a turn without the texts 'from' and 'value'");
  }
  for (const auto& [name, role] : kRoles) {
    if (name != from) continue;
    const bool call = from == "function_call";
    std::string fields = call ? ToolCalls(value, column) : "";
    for (const auto [key, more] : dom::object(item)) {
      if (key != "from" && key != "value" && key != "content")
        AppendMessageField(fields, key, more);
    }
    if (!fields.empty()) fields.push_back('}');
    messages.push_back({std::string(role), call ? "" : std::string(value), std::move(fields)});
    return;
  }
  Refuse(column, "the unknown speaker '" + std::string(from.substr(0, 40)) +
                     "' (human, gpt, system, tool, observation, function_call; user, assistant, "
                     "bot, model, chatgpt, developer, function)");
}

}  // namespace

bool IsShareTurn(dom::element value) {
  dom::element first = value;
  if (value.is_array()) {
    const dom::array list = value;
    if (list.size() == 0) return false;
    first = list.at(0);
  }
  dom::element from;
  return first.is_object() && first["from"].get(from) == simdjson::SUCCESS;
}

bool OnlyAsks(dom::element value) {
  if (!value.is_array()) return false;
  bool asks = false;
  for (const dom::element item : dom::array(value)) {
    std::string_view who, role;
    if (item["role"].get(who) != simdjson::SUCCESS && item["from"].get(who) != simdjson::SUCCESS)
      return false;
    role = who;
    for (const auto& [name, as] : kRoles) {
      if (name == who) role = as;
    }
    if (role == "assistant") return false;
    asks = asks || role == "user";
  }
  return asks;
}

void AppendShareTurns(dom::element value, std::string_view column, std::vector<Message>& messages) {
  if (!value.is_array()) return AppendTurn(value, column, messages);
  for (const dom::element item : dom::array(value)) AppendTurn(item, column, messages);
}

bool AppendHistory(dom::element value, std::string_view column, std::vector<Message>& messages) {
  if (!value.is_array()) return false;
  for (const dom::element item : dom::array(value)) {
    if (!item.is_array()) return false;
    std::string_view user, assistant;
    const dom::array pair = item;
    if (pair.size() != 2 || pair.at(0).get(user) != simdjson::SUCCESS ||
        pair.at(1).get(assistant) != simdjson::SUCCESS) {
      Refuse(column, "an entry that is no pair of texts [user, assistant]");
    }
    messages.push_back({"user", std::string(user)});
    messages.push_back({"assistant", std::string(assistant)});
  }
  return true;
}

}  // namespace plumb::replay
