// Why an actor gave an answer up, where whoever reads the reason has to tell one cause from the
// others.
//
// An answer with FinishReason::kAborted says why in Trajectory::unscored_reason. What begins with
// kNonFiniteLogits is the fault of the weights: no prompt is answered by them, and a run must not
// go on. What begins with kEnvironmentFailed is the fault of the environment that led the
// conversation (environment/). Everything else is a refusal of this one prompt.
// Do not change the texts: they are stored. Thread safety: constants.
#pragma once

#include <string_view>

namespace plumb {

inline constexpr std::string_view kNonFiniteLogits = "the logits are not finite";
inline constexpr std::string_view kEnvironmentFailed = "environment: ";

}  // namespace plumb
