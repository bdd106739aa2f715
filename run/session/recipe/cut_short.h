// Whether a run was asked for fewer steps than its recipe has: the recipe's bar is for all of them.
//
// Purpose: `plumb train RECIPE --steps 2` tries a recipe, and is no training that failed. A bar of
// another value than the recipe's was asked for together with the steps, and holds. What the recipe
// said stands in run.json, since a resume has the run's own recipe alone.
// Thread safety: pure functions of the file system. Errors: none; of what cannot be read nothing is
// known, and nothing was cut.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "configs/config.h"

namespace plumb::run {

// Of a run's recipe as its file has it, for run.json: {"steps": 40, "bar": 0.9}; null: it cannot be
// read.
nlohmann::json StepsAndBar(const std::string& recipe);

// The steps that the run's recipe has, where `config` has fewer and the recipe's own eval.bar; else
// 0. `identity`: the run's run.json.
int64_t StepsBeforeTheCut(const std::string& identity, const configs::Config& config);

}  // namespace plumb::run
