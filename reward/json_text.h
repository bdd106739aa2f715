// JSON as reward functions write it: bounded, strict about meaning, lenient about NaN.
//
// Purpose: what the doors that speak JSON have in common (program, http, zmq, judge). One score is
//   0.5 | null (does not apply) | {"score":x} | {"scores":{"a":x,"b":y}} (value: their sum unless score is given)
//   | {"skip":true} | {"error":"why","kind":"one of the names of reward::Failure"}
// Thread safety: pure functions. Errors: none is thrown; what is wrong becomes a PartScore or a discarded value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/trajectory.h"
#include "reward/reward.h"

namespace plumb::reward {

// Nested deeper than `limit`? Asked before the parser builds anything: a deep document overflows the stack when it is freed.
bool TooDeep(std::string_view text, int limit);

// Discarded when it is no JSON. Bare NaN, Infinity and -Infinity (as Python writes them) become null and set `not_finite`.
nlohmann::json ParseLooseJson(std::string_view text, bool* not_finite);

// One score as above.
PartScore ScoreFromJson(const nlohmann::json& value);
// kReported for a name that is none.
Failure FailureOf(std::string_view name);

// The first `limit` bytes without control characters, for messages.
std::string Shown(std::string_view text, size_t limit = 120);

// Prompt::text, or the list of messages with all that they say.
nlohmann::ordered_json PromptJson(const Prompt& prompt);
// The row's other columns as one line of JSON; "{}" for what is no object.
std::string ExtraJson(const Prompt& prompt);
// Invalid UTF-8 is replaced, never an exception.
std::string DumpJson(const nlohmann::ordered_json& value);

}  // namespace plumb::reward
