// Environments in Python files, as people wrote them for other frameworks, run unchanged.
//
// Purpose: kind = "python". path is the file; a runner of ours
// (environment/doors/runner, inside the binary) loads it in an interpreter of its own and speaks
// the lines of environment/doors/protocol.h. Which form it is, is seen by what it has
// (docs/environments.md):
//   TRL         a class with reset, whose other public methods are the tools, get_reward or not;
//               functions with types and a docstring
//   verl        classes of BaseTool; functions under @function_tool; a class of AgentLoopBase
//   OpenRLHF    AgentInstance with reset and step; AgentExecutor with execute; a function step
//   Gym         a class, or a function that makes one, with reset and step; OpenEnv's Environment
//   datasets    of reasoning-gym: what has score_answer and items
// args: python=INTERPRETER, kwargs={JSON object} (arguments of the class).
// Thread safety: pure functions. Errors: kInvalidArgument for what args does not take.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::environment {

extern const char* const kEnvironmentRunner;  // the runner's source

struct PythonEnvironment {
  std::string interpreter = "python3", constants = "{}";
};
PythonEnvironment ReadPythonEnvironment(const configs::EnvironmentConfig& config);

// Of the interpreter.
std::vector<std::string> PythonArguments(const PythonEnvironment& python,
                                         const configs::EnvironmentConfig& config,
                                         const std::string& file);

}  // namespace plumb::environment
