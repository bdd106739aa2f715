// The rows of a recipe, read as its run reads them at its start, before there is a run.
//
// Purpose: what a run refuses for its rows (none that can be used, fewer than a step asks for, no
// ground truth that a reward part compares with) is refused by `plumb plan`, too, in the same
// words. Thread safety: one thread. Errors: those of the run.
#pragma once

#include <cstdint>
#include <string>

#include "run/session/session.h"

namespace plumb::run {

// Larger files are not read for a plan, which is to take seconds.
inline constexpr int64_t kRowsLookedAt = 32'000'000;  // bytes

// Reads them and throws what a run would throw. Why none were looked at, as a sentence (a file that
// is too large, no room for temporary files); empty: all were.
std::string CheckRows(const Session& session);

}  // namespace plumb::run
