// Options of a section that the recipe's algorithm does not read; and, of options of the same name,
// the one that it reads.
//
// Purpose: preference.beta in a GRPO recipe changes nothing, and nobody would notice. Thread
// safety: pure functions. Errors: none; such options are sentences.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

// A sentence for each option of [preference] that is not as it is by default where nothing reads
// it, and of [rollout] and the epochs where the algorithm draws no answers. A whole recipe, which
// says the defaults of all sections, is fine.
void SayUnread(const Config& config, std::vector<std::string>& notes);

// `options`, full names, the one first that `algorithm` learns by; where it would not read
// algorithm.epochs, what stands in its place.
std::vector<std::string> OwnFirst(std::vector<std::string> options, AlgorithmName algorithm);

}  // namespace plumb::configs
