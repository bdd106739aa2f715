// The verb `plumb plan`: what a recipe's run would take of memory and of time, without one.
//
// Purpose: adds itself to the command line (run/commands/cli.h); text, or JSON in bytes and
// seconds. Thread safety: one caller, main. Errors: those of a recipe, a card and a file of speeds;
// those of run/roles/run_memory.h where the run does not fit.
#pragma once

#include <CLI/CLI.hpp>

namespace plumb::run {

void AddPlanCommand(CLI::App& app);

}  // namespace plumb::run
