// Where a file that is written beside its name and then renamed has to go, whether it may, and
// whether what was printed got there.
//
// Thread safety: functions of the file system and of standard output. Errors: CheckOutput throws
// kInvalidArgument, kNotFound and kIo, CheckNothingIsLost kConflict, FlushOutput kIo; what cannot
// be looked at is taken for a new file.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace plumb {

// `path`, or what it is a link to. nullopt: a device, a pipe or a socket, in whose place a rename
// would put a file: it is to be written to as it is.
std::optional<std::string> ReplaceablePath(const std::string& path);

// Refuses, before any work is done, a file that could not be written or whose writing would destroy
// what is read: a folder, a name in a folder that is not there or takes no file, one of `inputs`
// under any name. "-" is standard output. `option`: what named it, for messages.
void CheckOutput(const std::string& path, const std::vector<std::string>& inputs,
                 const std::string& option);

// kConflict where `path` is a file that holds something, which only `overwrite` gives leave to
// replace.
void CheckNothingIsLost(const std::string& path, bool overwrite, const std::string& option);

// Flushes standard output. kIo with the reason where it does not take all of it: whoever writes to
// a pipe learns here that nobody reads any more.
void FlushOutput();
// The reason. `code`: errno, 0 where the write that failed is long gone.
std::string OutputProblem(int code);

}  // namespace plumb
