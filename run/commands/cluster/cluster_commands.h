// The verbs of runs over several machines: `plumb role` joins one, `plumb launch` writes what a
// scheduler needs to start one.
//
// Purpose: add themselves to the command line (run/commands/cli.h). Thread safety: one caller,
// main. Errors: those of run/roles/cluster/member.h, of a recipe and of its options.
#pragma once

#include <CLI/CLI.hpp>

#include "run/commands/cli.h"

namespace plumb::run {

void AddRoleCommand(CLI::App& app, CliResult& result);
void AddLaunchCommand(CLI::App& app);

}  // namespace plumb::run
