// Unicode normalisation form C, which some tokenizers ask for.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace plumb::policy_model {

// Bytes that are not UTF-8 stay as they are and end a sequence.
std::string ComposeNfc(std::string_view text);

}  // namespace plumb::policy_model
