// A Python process for code that a model wrote: it sees the system's files and Python's alone.
//
// Purpose: what tests of generated code and the python tool have in common. Namespaces without the
// users' files and without network around it; from the inside limits, and a system-call filter
// without fork and exec, which the runner sets by wall(limits, filter) of python_walls.py: it
// stands in front of the runner's own text. Thread safety: pure functions; AskPython starts a
// process. Errors: Error(kInvalidArgument) for what is no Python 3; kUnsupported where the walls
// cannot be built.
#pragma once

#include <string>
#include <vector>

#include "common/sandbox/sandbox.h"

namespace plumb {

extern const char* const kPythonWalls;  // the text of python_walls.py

struct Python {
  std::string exe, version;
  std::vector<std::string> prefixes;  // where its standard library and packages lie
};
// `python`: an interpreter that is there (FindExecutable).
Python AskPython(const std::string& python, const std::string& place);

// The whole command line: walls, interpreter, runner, `arguments`, then limits and filter as the
// last two arguments. `sandbox` says memory, sizes and what may be missing.
std::vector<std::string> WalledPython(const Python& python, SandboxOptions sandbox,
                                      const std::string& runner,
                                      const std::vector<std::string>& arguments,
                                      const std::string& place);

}  // namespace plumb
