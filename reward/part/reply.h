// What a program, an HTTP service or a ZeroMQ worker is told of a prompt, and how it answers.
//
// One score is
//   0.5 | null (does not apply) | {"score":x} | {"scores":{"a":x,"b":y}} (value: their sum unless
//   score is given) | {"skip":true} | {"error":"why","kind":"one of the names of reward::Failure"}
// Thread safety: pure functions. Errors: none is thrown; what is wrong becomes a PartScore.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/record/json_text.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// One score as above.
PartScore ScoreFromJson(const nlohmann::json& value);
// kReported for a name that is none.
Failure FailureOf(std::string_view name);

using plumb::ExtraJson;
using plumb::PromptJson;

}  // namespace plumb::reward
