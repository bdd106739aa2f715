// JSON as text: written without a tree, read from programs that are not strict about it, shown in
// messages. What has to be strict is read by common/base/json/strict_json.h.
//
// Thread safety: pure functions. Errors: none is thrown.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb {

// Appends `text` as a JSON string, quotes included. Bytes are taken as they are: who may hold
// broken UTF-8 repairs it first (common/text/unicode.h).
void AppendJsonText(std::string& out, std::string_view text);
// Appends [{"role": ..., "content": ..., other fields}, ...].
void AppendJsonMessages(std::string& out, const std::vector<Message>& messages);
// Invalid UTF-8 is replaced, never an exception.
std::string DumpJson(const nlohmann::ordered_json& value);

// Nested deeper than `limit`? Asked before the parser builds anything: a deep document overflows
// the stack when it is freed.
bool TooDeep(std::string_view text, int limit);
// Discarded when it is no JSON. Bare NaN, Infinity and -Infinity (as Python writes them) become
// null and set `not_finite`.
nlohmann::json ParseLooseJson(std::string_view text, bool* not_finite);

// A prompt as other people's code is told of it: Prompt::text, or the list of messages with all
// that they say.
nlohmann::ordered_json PromptJson(const Prompt& prompt);
// The row's other columns as one line of JSON; "{}" for what is no object.
std::string ExtraJson(const Prompt& prompt);

// The first `limit` bytes without control characters, for messages.
std::string Shown(std::string_view text, size_t limit = 120);

}  // namespace plumb
