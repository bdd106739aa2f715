// What this program was built from. Written by the build (cmake/WriteCommit.cmake).
//
// Thread safety: constants.
#pragma once

#include <string>

namespace plumb::run {

// The commit, with a mark where files had changed since; "unknown" outside a clone.
std::string BuiltCommit();
std::string BuiltVersion();  // "0.1.0"

}  // namespace plumb::run
