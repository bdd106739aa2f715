// What an environment in another process, or on another machine, is told and how it answers.
//
// Purpose: one protocol behind the doors program (a line each on its stdin and stdout), plugin and
// python (our hosts speak it for them) and http (a POST each). docs/environments.md has it with
// examples.
//   <- {"ready":true,"tools":[schemas]}       first of all; tools may be left out
//   -> {"id":1,"call":"begin","episode":7,"prompt":"..."|[messages],"ground_truth":"...",
//       "sample":0,"extra":{..}}
//   -> {"id":2,"call":"act","episode":7,"text":"what the policy wrote","content":"..",
//       "calls":[{"id":"..","name":"f","arguments":{..}}],"last":false}
//   -> {"id":3,"call":"end","episode":7}
//   <- {"id":2} and of these what there is to say:
//       "observation":"..."     said to the policy, as the user's turn
//       "messages":[{"role","content",..}]      the same, with roles of one's own
//       "text":"..."            appended as it is, without the chat template
//       "results":["..." | {"content":"..","failed":true}]   one for each of the calls, in order
//       "reward":0.5, "done":true, "failed":true (the action could not be done)
//      or {"id":2,"error":"why this conversation cannot go on"}
// Thread safety: pure functions. Errors: readers throw Error(kCorruption) for anything else; a
// number that is not finite is such an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "environment/calls/tool_call.h"

namespace plumb::environment {

enum class Ask : uint8_t { kBegin, kAct, kEnd };

struct PeerRequest {
  Ask ask = Ask::kBegin;
  uint64_t episode = 0;
  const Prompt* prompt = nullptr;  // of kBegin
  uint32_t sample = 0;
  std::string text, content;    // of kAct
  std::vector<ToolCall> calls;  // with ids; names and arguments fit the tools
  bool last = false;            // no turn of the policy comes behind this one
};

struct CallResult {
  std::string content;
  bool failed = false;
};

struct PeerReply {
  std::vector<Message> messages;
  std::string text;
  std::vector<CallResult> results;  // [calls]
  std::optional<double> reward;
  bool done = false, failed = false;
  std::string error;
};

// One line without its end.
std::string RequestLine(const PeerRequest& request, uint64_t id);

// The reply to request `id` with `calls` calls.
PeerReply ReadReply(std::string_view line, uint64_t id, size_t calls);

struct Greeting {
  std::string tools;  // JSON array; "": none
  std::string error;  // not empty: it does not serve
};
Greeting ReadGreeting(std::string_view line);

}  // namespace plumb::environment
