// The end token at the end of a sampled answer's text: part of what was sampled, not of what the
// assistant says.
//
// Purpose: a chat template writes an end of its own behind a content, so contents of exported and
// mined rows carry none.
// Thread safety: pure function.
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

}  // namespace plumb::replay
