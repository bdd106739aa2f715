// Dialogues as ShareGPT and Alpaca files hold them: turns with `from` and `value`, a history of
// [user, assistant] pairs.
//
// Thread safety: pure functions. Errors: RowProblem.
#pragma once

#include <string_view>
#include <vector>

#include <simdjson.h>

#include "common/record/trajectory.h"

namespace plumb::replay {

// An object with the key `from` (or a list whose first entry is one): read by AppendShareTurns,
// else it is a message.
bool IsShareTurn(simdjson::dom::element value);
// A list of messages or of turns with a user's among them and none of the assistant: it asks.
bool OnlyAsks(simdjson::dom::element value);
// One turn or a list of them. Roles: human, user; gpt, assistant, bot, model, chatgpt; system,
// developer; tool, observation, function_response as "tool"; function_call as an assistant's
// message with tool_calls (its value is JSON).
void AppendShareTurns(simdjson::dom::element value, std::string_view column,
                      std::vector<Message>& messages);
// [[user, assistant], ...]; false: it is no list of lists, and nothing was appended.
bool AppendHistory(simdjson::dom::element value, std::string_view column,
                   std::vector<Message>& messages);

}  // namespace plumb::replay
