// JSON from outside: nested at most 64 deep, a key at most once in an object, nothing after the
// value, and no more values than fit in some 64 MB and once the size of the text.
//
// Purpose: two readers must never see two models in one file, and a hostile file must not exhaust
// the stack. Thread safety: pure functions. Errors: kCorruption with the file and what is wrong, at
// which byte; key order is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace plumb {

inline constexpr int kMaxJsonDepth = 64;
// What a document may cost: a value 2, an array or object 4, a key 5, each some 16 bytes of memory.
// A vocabulary of 200,000 with 450,000 merges as pairs costs 5 million in 27 MB; without a bound,
// 10 MB of "[]," would take 200 MB.
inline constexpr int64_t kMaxJsonCost = int64_t{1} << 22;

// `where` names the input in messages. On top of max_cost comes a byte of memory for each byte of
// text.
nlohmann::ordered_json ParseStrictJson(std::string_view text, const std::string& where = "",
                                       int64_t max_cost = kMaxJsonCost);
// The whole file; kInvalidArgument when it has more than `max_bytes`.
nlohmann::ordered_json ReadStrictJson(const std::string& path, size_t max_bytes);

}  // namespace plumb
