// What a text is that is no TOML, where that can be told.
//
// Purpose: recipes of other systems are YAML, and rows of data JSON; a parser's complaint about a
// character says neither. Thread safety: a pure function. Errors: none.
#pragma once

#include <string>

namespace plumb::configs {

// A clause for behind a complaint about the text of the file `name`: "; this looks like YAML, ...";
// "": it is not known.
std::string WhatElse(const std::string& text, const std::string& name);

}  // namespace plumb::configs
