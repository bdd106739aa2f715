// The hidden verb `role-process`: one role of a run in processes, as `plumb train` starts it under
// its supervisor.
//
// Purpose: adds itself to the command line (run/commands/cli.h). Thread safety: one caller, main.
// Errors: those of the role (run/roles/roles.h) and of the run's folder.
#pragma once

#include <CLI/CLI.hpp>

#include "run/commands/cli.h"

namespace plumb::run {

void AddRoleProcessCommand(CLI::App& app, CliResult& result);

}  // namespace plumb::run
