// Contradictions between options of what a step minimises: [algorithm], [preference], [optimizer].
//
// Purpose: a part of Validate (configs/config.h) in a file of its own. Thread safety: pure
// functions. Errors: none; one sentence a contradiction, which names the options.
#pragma once

#include "configs/config.h"
#include "configs/problems.h"

namespace plumb::configs {

void CheckLearning(const Config& config, Problems& problems);

// optimizer.gradients = "bfloat16" is not set, and goes with the other options.
bool MayNarrowGradients(const Config& config);

}  // namespace plumb::configs
