// Why an actor gave an answer up, where whoever reads the reason has to tell one cause from the
// others.
//
// An answer with FinishReason::kAborted says why in Trajectory::unscored_reason. What begins with
// kNonFiniteLogits is the fault of the weights: no prompt is answered by them, and a run must not
// go on. Everything else is a refusal of this one prompt.
// Do not change the text: it is stored. Thread safety: a constant.
#pragma once

#include <string_view>

namespace plumb {

inline constexpr std::string_view kNonFiniteLogits = "the logits are not finite";

}  // namespace plumb
