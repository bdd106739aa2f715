// Contradictions between options of what is trained: [model], [experts], [policy].
//
// Purpose: a part of Validate (configs/config.h) in a file of its own. Thread safety: pure
// functions. Errors: none; one sentence a contradiction, which names the options.
#pragma once

#include "configs/config.h"
#include "configs/problems.h"

namespace plumb::configs {

void CheckModel(const Config& config, Problems& problems);

}  // namespace plumb::configs
