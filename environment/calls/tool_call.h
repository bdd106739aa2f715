// What a model says when it wants a tool: the calls in a turn's text, in the form of its family.
//
//   hermes    <tool_call>{"name": "f", "arguments": {..}}</tool_call>, any number of them; between
//             the marks also what Qwen 3.5 and GLM write, and MiniMax's and LFM 2's own marks
//             (tagged_call.h, python_calls.h)
//   llama3    {"name": "f", "parameters": {..}} as the whole turn, <|python_tag|> in front or not,
//             several behind one another with ; or a new line between them; after <|python_tag|>
//             also f.call(key="value")
//   mistral   [TOOL_CALLS][{"name": "f", "arguments": {..}, "id": ".."}], or, as later ones write,
//             [TOOL_CALLS]f[ARGS]{..} with [CALL_ID].. between them or not
//   deepseek  its tool-call tokens around function, name and a ```json block (V3, R1), or around
//             name and arguments (V3.1)
//   harmony   of gpt-oss: a message with to=functions.f in its header, <|constrain|>json or not
//
// Thread safety: pure functions. Ownership: values. Errors: none is thrown for any bytes; what is
// meant as a call and is none is `malformed`, in words for the model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/choices.h"

namespace plumb::environment {

struct ToolCall {
  std::string id;         // as the model wrote it; empty: it wrote none
  std::string name;       // never empty
  std::string arguments;  // one JSON object
  bool spelled = false;   // its values are texts, whatever they mean: ToolTable::Typed
  bool operator==(const ToolCall&) const = default;
};

struct ParsedTurn {
  std::string content;  // what was said beside the calls, without blanks around it
  std::vector<ToolCall> calls;
  // Not empty: the turn means to call and cannot be read; `calls` is empty then.
  std::string malformed;
  // Then: what a call of the form that was tried looks like; empty: as the form's usual one.
  std::string like;
};

// `form` is none of kAuto.
ParsedTurn ParseTurn(configs::ToolForm form, std::string_view text);

// The form that a chat template writes earlier calls in; hermes where it shows none.
configs::ToolForm FormOfTemplate(std::string_view chat_template);

}  // namespace plumb::environment
