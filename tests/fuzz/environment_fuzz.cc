// What models and environments write: calls of tools, expressions, replies.
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "environment/calls/tool_table.h"
#include "environment/doors/protocol.h"
#include "environment/tools/calculator_tool.h"
#include "targets.h"

namespace plumb::fuzz {

using environment::ParseTurn;
using environment::ToolTable;

// The first byte chooses the form.
void FuzzToolCalls(std::string_view input) {
  if (input.empty()) return;
  static const ToolTable tools(
      R"([{"name":"f","parameters":{"required":["a"],"properties":{"a":{"type":"integer"},)"
      R"("b":{"type":["array","null"],"items":{"enum":[1,"x"]}}}}}])");
  const auto form = static_cast<configs::ToolForm>(1 + static_cast<unsigned char>(input[0]) % 5);
  const environment::ParsedTurn turn = ParseTurn(form, input.substr(1));
  PLUMB_CHECK(turn.malformed.empty() || turn.calls.empty(), "calls of a malformed turn");
  for (const environment::ToolCall& call : turn.calls) {
    PLUMB_CHECK(!call.name.empty(), "a call without a name");
    PLUMB_CHECK(nlohmann::json::parse(call.arguments).is_object(), call.arguments);
    Use(tools.Check(call).has_value());
  }
}

Seeds ToolCallSeeds() {
  return {
      std::string(1, '\0') + "hm <tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>",
      "\x01<|python_tag|>f.call(a=1, b=[1,\"x\"])",
      "\x01{\"name\":\"f\",\"parameters\":{\"a\":1}}; {\"name\":\"f\",\"parameters\":{}}",
      "\x02yes[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{\"a\":1},\"id\":\"abcdefghi\"}]",
      "\x02[TOOL_CALLS]f[CALL_ID]x[ARGS]{\"a\":1}",
      "\x03<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\":1}\n"
      "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
      "\x04<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
  };
}

void FuzzEnvironmentReply(std::string_view input) {
  const auto [line, tools] = Halves(input);
  try {
    Use(ToolTable(tools).names().size());
  } catch (const Error&) {
  }
  Use(environment::Evaluate(line).shown.size());
  try {
    Use(environment::ReadGreeting(line).tools.size());
  } catch (const Error&) {
  }
  Use(environment::ReadReply(line, 2, 1).messages.size());
}

Seeds EnvironmentReplySeeds() {
  return {
      Joined(R"({"id":2,"results":["a"],"reward":0.5,"done":true})", R"([{"name":"f"}])"),
      Joined(R"({"id":2,"results":[{"content":"b","failed":true}],"messages":[{"role":"tool",)"
             R"("content":null,"name":"f"}],"observation":"x","text":"y"})",
             R"([{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])"),
      Joined(R"({"id":2,"error":"no"})", "[]"),
      Joined(R"({"ready":true,"tools":[{"name":"f"}]})", "{}"),
      Joined("(1 + 2.5e3) ** -2 // sqrt(9/4) % max(1, 2)", ""),
  };
}

}  // namespace plumb::fuzz
