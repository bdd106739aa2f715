// A Python interpreter for the policy: each call is a program in a process of its own.
//
// Purpose: tool python(code). What it prints is the answer; where its last line is an expression,
// that one's value is written behind it, as an interpreter does. An exception is an answer too,
// with its text and its line, and a failed call. Nothing is kept from call to call. Walls: the ones
// around code that tests judge (common/sandbox/python_walls.h): no network, no files but the
// system's, no processes, memory within environment.memory_mb, the call's deadline. Output: the
// first 8,000 characters. The process of the next call gets ready while the policy writes.
// Thread safety, errors: as Tool; without Python 3, or where the walls cannot be built, the maker
// throws.
#pragma once

#include <memory>

#include "environment/tools/tool.h"

namespace plumb::environment {

extern const char* const kPythonToolRunner;  // the source of the process

std::unique_ptr<Tool> MakePythonTool(const SandboxOptions& sandbox,
                                     const std::string& interpreter = "python3");

}  // namespace plumb::environment
