// How this program is called from where the user stands, for the commands that it proposes.
//
// Purpose: a proposed command runs when it is copied: `plumb` where the PATH finds this very file,
// else its path, from the working directory where it lies below that (build/plumb).
// Thread safety: reads the environment and the working directory. Errors: none; `plumb` where
// nothing better is known.
#pragma once

#include <string>

namespace plumb {

std::string ProgramCall();

// The same of another program, PATH and working directory.
std::string CallOf(const std::string& program, const std::string& path, const std::string& from);

}  // namespace plumb
