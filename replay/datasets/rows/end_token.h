// What the assistant says in a sampled answer: not the end token at its end, nor what an
// environment said.
//
// Purpose: a chat template writes an end of its own behind a content, so contents of exported and
// mined rows carry none.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::replay {

// Cuts one end token off the end of `text`: one of `more`, or one that the known model families
// write. False: there is none.
bool CutEndToken(std::string& text, const std::vector<std::string>& more);
// What the assistant says in a sampled answer: its text, without the end token where one ended it.
std::string Said(const Trajectory& answer, const std::vector<std::string>& more);

// Some of its tokens an environment said.
bool HasEnvironment(const Trajectory& answer);

}  // namespace plumb::replay
