// Where tests find the tree's files and the programs of this build. Functions and not macros,
// because a folder's name in the text of a test would give every clone of the tree objects of its
// own in the compiler cache. Thread-safe.
#pragma once

#include <string>

namespace plumb::testing {

std::string SourcePath(
    const std::string& under);  // "configs/toy_grpo.toml" -> absolute path in the tree
std::string BinaryPath(const std::string& under);  // "plumb" -> absolute path in the build folder

}  // namespace plumb::testing
