// An answer as tokens, and which of them are learned: what the model's chat template writes for it,
// and nothing else.
//
// Purpose: demonstrations, pairs and judged completions all learn what a rollout would have to say.
// With messages that is the text between the rendered prompt, generation prompt included, and the
// whole, rendered as transformers renders both: trimmed, with end-of-turn tokens and an empty think
// block where the template writes them. Messages of the answer whose `weight` is 0 or whose `train`
// is false stand in it and are not learned.
// Thread safety: pure functions.
// Errors: kUnsupported for a template that writes a prompt in another way once an answer follows,
// with both ways; what the template refuses.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb::run {

// [prompt | answer], of which the answer is learned.
Demonstration Joined(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer);

// `answer` behind `prompt`; `columns_json` as ChatTemplate::Render takes it, `where` for messages.
// Empty: the template does not write the calls of a message of the answer, so that something else
// would be learned.
std::optional<Demonstration> AnswerTokens(const Tokenizer& tokenizer,
                                          const ChatTemplate& chat_template,
                                          std::span<const Message> prompt,
                                          std::span<const Message> answer,
                                          std::string_view columns_json, const std::string& where);

}  // namespace plumb::run
