// JSON of a model folder: nested at most 64 deep, a key at most once in an object, nothing after the value.
//
// Purpose: two readers must never see two models in one file, and a hostile file must not exhaust the stack.
// Thread safety: pure functions. Errors: kCorruption with the file and what is wrong; key order is kept.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace plumb::policy_model {

inline constexpr int kMaxJsonDepth = 64;

// `where` names the input in messages.
nlohmann::ordered_json ParseStrictJson(std::string_view text, const std::string& where);
// The whole file; kInvalidArgument when it has more than `max_bytes`.
nlohmann::ordered_json ReadStrictJson(const std::string& path, size_t max_bytes);

}  // namespace plumb::policy_model
