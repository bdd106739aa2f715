// Contradictions between options of what a step minimises: [algorithm], [preference], [optimizer].
//
// Purpose: a part of Validate (configs/config.h) in a file of its own. Thread safety: pure
// functions. Errors: none; one sentence a contradiction, which names the options.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

std::vector<std::string> LearningContradictions(const Config& config);

}  // namespace plumb::configs
