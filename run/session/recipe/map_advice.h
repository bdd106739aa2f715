// Advice to name a column, as a verb takes it.
//
// Purpose: whoever reads rows advises "--map prompt=COLUMN, in a recipe data.map = ...", which a
// verb that takes a recipe has not: there it is --set. Thread safety: a pure function. Errors:
// none.
#pragma once

#include <string>

namespace plumb::run {

// "--set 'data.map={prompt="COLUMN"}'" in the place of each such advice in `text`.
std::string MapAdviceBySet(std::string text);

}  // namespace plumb::run
