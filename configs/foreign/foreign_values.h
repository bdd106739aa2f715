// Values of other systems' options that say more than ours, or under another name: TRL's
// loss_type = "luspo", verl's adv_estimator = "opo".
//
// Purpose: a recipe that came from TRL or verl means here what it meant there. Such a value becomes
// the options that have its definition, at the same line; `plumb config show` says of each what it
// came from. Under our own name of an option only our values are taken (foreign_names.h says what
// to write). Thread safety: pure functions. Ownership: the tables are the caller's. Errors: none;
// what is given twice becomes a problem.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/foreign/foreign_paths.h"
#include "configs/foreign/toml_table.h"

namespace plumb::configs {

// `mentions.values` loses what `root` gives anew.
void TakeForeignValues(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions,
                       std::vector<std::string>& problems);

// What their option takes of theirs alone: "loss_type" of "algorithm" "grpo", "bnpo", ...; empty:
// it has no values of its own.
std::vector<std::string> ForeignValuesOf(std::string_view table, std::string_view key);

}  // namespace plumb::configs
