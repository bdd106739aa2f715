// How `plumb eval` measures what a run trained, as far as the run's own recipe says.
//
// Purpose: a run without reward parts has none to judge answers by, and who is told of them types a
// command that fails. Thread safety: functions of the file system. Errors: none; of a recipe that
// cannot be read nothing is said.
#pragma once

#include <string>

#include "configs/config.h"

namespace plumb::run {

enum class RunMeasure : uint8_t { kNone, kRewards, kPairs, kPerplexity };

// What eval can go by of a run of this recipe.
RunMeasure MeasureOf(const configs::Config& config);

// Where the run's answers are judged by the rule "answer": " (--rewards RUN/config.toml: by the
// run's)"; of a run without parts what else measures it.
std::string OtherMeasure(const std::string& run);

// Where no data are named: "; --recipe RUN/config.toml asks ..."; of a run that has no held-out
// prompts or no parts, what else measures it.
std::string OwnMeasure(const std::string& run);

}  // namespace plumb::run
