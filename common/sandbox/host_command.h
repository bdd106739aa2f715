// The command lines of processes that hold other people's code.
//
// Purpose: a host is a program of ours that applies limits and system-call filter from the inside
// and then becomes, or loads, the code: `plumb reward-host`, `plumb environment-host`. In front of
// it stand the namespaces of common/sandbox/sandbox.h. Thread safety: pure functions. Errors:
// Error(kUnsupported | kNotFound | kInvalidArgument).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/sandbox/sandbox.h"

namespace plumb {

// Namespaces, host, limits, `verb` ("--so" or "--exec") with `path`, then `arguments`. `host`: the
// host's own command, e.g. {"plumb", "reward-host"}; what this very program has mapped is shown to
// it where that is what the host is.
std::vector<std::string> HostCommand(SandboxOptions sandbox, const std::vector<std::string>& host,
                                     const std::string& verb, const std::string& path,
                                     const std::vector<std::string>& arguments);
// This program with a verb in front of its arguments.
std::vector<std::string> OwnHost(const std::string& verb);

// The executable behind a name: itself if it has a slash, else the first in PATH. Errors are said
// of `place`.
std::string FindExecutable(const std::string& name, const std::string& place);

// The bound of ChildOptions::max_processes: the kernel bounds the processes of every user but root.
int64_t CountedProcesses(const SandboxOptions& sandbox);

}  // namespace plumb
