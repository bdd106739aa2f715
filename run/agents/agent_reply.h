// What a call of an agent is told, in OpenAI's form: with the calls of tools read out of the text.
//
// Purpose: the answer of run/serve/answer_reply.h, whose message has `tool_calls` where the policy
// called and finish_reason "tool_calls" then; of a stream the same in a few chunks, for an answer
// is told when it is whole. Thread safety: pure functions. Errors: none.
#pragma once

#include <string>

#include "common/text/tokenizer/tokenizer.h"
#include "run/agents/agent_door.h"
#include "run/serve/answer_request.h"

namespace plumb::run {

// The body: one JSON object, or, of a stream, its events.
std::string AgentReply(const AnswerRequest& request, const AnsweredCall& answered,
                       const Tokenizer& tokenizer, const std::string& model);

}  // namespace plumb::run
