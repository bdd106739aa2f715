// JSON from outside: depth at most 64, a key at most once in an object, nothing after the value.
//
// Thread safety: pure function. Errors: kCorruption saying at which byte.
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

namespace plumb::replay {

inline constexpr int kMaxJsonDepth = 64;

nlohmann::json ParseStrictJson(std::string_view text);

}  // namespace plumb::replay
