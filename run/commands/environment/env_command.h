// The verb `plumb env test`: a recipe's environment in conversation with a script, before a model
// is trained in it.
//
// Purpose: adds itself to the command line (run/commands/cli.h). The environment is made as a run
// makes it; what the policy would write is given by --reply, turn by turn, or else is the row's
// ground truth, said once, of a calculator after the prompt's sum. Thread safety: one caller, main.
// Errors: those of the recipe, of rows and of environments; exit code 10 where no conversation came
// through.
#pragma once

#include <CLI/CLI.hpp>

#include "run/commands/cli.h"

namespace plumb::run {

void AddEnvCommand(CLI::App& app, CliResult& result);

}  // namespace plumb::run
