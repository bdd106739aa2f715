// Which algorithms read an option, where the recipe's own does not.
//
// Purpose: who brings TRL's cpo_alpha or cliprange_value to a recipe of another algorithm is told
// an option that changes nothing there, and has to know whose it is. Thread safety: a pure
// function. Errors: none.
#pragma once

#include <string>

#include "configs/config.h"

namespace plumb::configs {

// " (of algorithm.name = \"dpo\"; the recipe's is \"grpo\")"; "": `algorithm` reads `option`, a
// full name, or it is not known who does.
std::string OwnersUnless(AlgorithmName algorithm, const std::string& option);

}  // namespace plumb::configs
