// Whether two tokenizers mean the same texts by their numbers.
//
// Thread safety: a pure function.
#pragma once

#include <cstdint>
#include <optional>

#include "common/text/tokenizer/tokenizer.h"

namespace plumb {

// The first id whose bytes differ, or that only one of them has; none where they are the same.
std::optional<int32_t> FirstDifference(const Tokenizer& a, const Tokenizer& b);

}  // namespace plumb
