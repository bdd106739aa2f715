// Values that are allowed and hardly meant: a rate of 5 where 5e-6 was.
//
// Purpose: such a run trains a broken model, and nothing else says so before hours are gone. Thread
// safety: a pure function. Errors: none; each value is a sentence.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

// A sentence for each rate above 1 of those that the recipe trains with.
void SayUnusual(const Config& config, std::vector<std::string>& notes);

}  // namespace plumb::configs
