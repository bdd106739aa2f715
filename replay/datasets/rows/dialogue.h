// Dialogues written as one text, and the prompt that two answers of a preference pair share.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::replay {

// Does the message ask for a tool (`tool_calls`, `function_call`)?
bool CallsTools(const Message& message);
// Is it learned where it is an answer? Not with `weight` 0 or `train` false.
bool IsLearned(const Message& message);

// HH-RLHF's form "\n\nHuman: ...\n\nAssistant: ...": turns as messages (user, assistant), text
// trimmed of blanks at both ends. An empty last turn (a dialogue that waits for the assistant) is
// left out. nullopt: the text does not begin with a turn, or a turn before the last is empty.
std::optional<std::vector<Message>> ParseHumanAssistant(std::string_view text);

// What two dialogues have in common before they part, ended at a user's message: the prompt that
// both answer. Two equal dialogues part at their last assistant turn. Empty: they share no user's
// message.
std::vector<Message> SharedPrompt(const std::vector<Message>& chosen,
                                  const std::vector<Message>& rejected);

}  // namespace plumb::replay
