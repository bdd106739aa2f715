// Where a file that is written beside its name and then renamed has to go.
//
// Thread safety: pure function of the file system. Errors: none; what cannot be looked at is taken
// for a new file.
#pragma once

#include <optional>
#include <string>

namespace plumb {

// `path`, or what it is a link to. nullopt: a device, a pipe or a socket, in whose place a rename
// would put a file: it is to be written to as it is.
std::optional<std::string> ReplaceablePath(const std::string& path);

}  // namespace plumb
