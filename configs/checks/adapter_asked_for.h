// Options of an adapter in a recipe that asks for none, where all weights would train unnoticed.
//
// Purpose: their defaults are those of an adapter, so that only where an option was given tells.
// Thread safety: a pure function. Errors: none; what is wrong is said.
#pragma once

#include <string>

#include "configs/config.h"

namespace plumb::configs {

// Where policy.rank, alpha or targets is given and policy.adapter is none: what to write; else "".
// A whole recipe, which says adapter = "none" beside their defaults, is fine.
std::string AdapterNotAskedFor(const Loaded& loaded);

}  // namespace plumb::configs
