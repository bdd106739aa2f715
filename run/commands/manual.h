// The manual page and the completions of shells, made from the command line as it is parsed: they
// cannot say anything else than `plumb VERB --help`.
//
// Thread safety: pure functions of `app`, whose verbs all have to be there. Verbs and options of no
// group (of the program itself) are left out.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace plumb::run {

// In roff's man macros, section 1.
std::string ManualPage(const CLI::App& app);
// A script that completes verbs and options, and files everywhere else; to be sourced by bash, or
// as `_plumb` in zsh's fpath.
std::string BashCompletion(const CLI::App& app);
std::string ZshCompletion(const CLI::App& app);

}  // namespace plumb::run
