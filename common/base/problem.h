// Why something cannot be, where that is no Error: the caller says it of an answer, a row or a
// machine, and goes on.
// Thread safety: values.
#pragma once

#include <optional>
#include <string>

namespace plumb {

// A clause that a message goes on with; nullopt: it can be.
using Problem = std::optional<std::string>;

}  // namespace plumb
