// Values that an option has where a recipe does not say.
//
// Purpose: most stand in configs/config.h; those of [algorithm] depend on algorithm.name. Thread
// safety: pure functions. Errors: none.
#pragma once

#include "configs/config.h"

namespace plumb::configs {

// Gives the options that are not among `origins` the usual value of algorithm.name, and an origin
// that says so.
void ApplyAlgorithmDefaults(AlgorithmConfig& algorithm, Origins& origins);

// A recipe that names the algorithm and nothing else.
Config DefaultsOf(AlgorithmName algorithm);

}  // namespace plumb::configs
