// A recipe with its mistakes collected, for whoever has more to find in it than contradictions
// between options (run/session/recipe/recipe_check.h), so that all are said at once.
//
// Thread safety: pure functions of the file. Errors: ReadRecipe and ParseRecipe throw only for a
// file that cannot be read and text that is no TOML.
#pragma once

#include <string>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {

// As LoadRecipe; `problems` gets what is wrong, a sentence each with its place in front, and the
// options that are fine are read. `notes`: of paths that lead to two places (configs/paths.h), of
// names that other systems have for an option, and of options that nothing reads; the
// latter two where nothing is wrong.
Loaded ReadRecipe(const std::string& path, const std::vector<std::string>& overrides,
                  std::vector<std::string>& problems, std::vector<std::string>* notes = nullptr);

// The same of a text, `name` in messages; its paths stay as they are written.
Loaded ParseRecipe(const std::string& text, const std::string& name,
                   const std::vector<std::string>& overrides, std::vector<std::string>& problems,
                   std::vector<std::string>* notes = nullptr);

// One Error that lists them; none: returns.
void ThrowProblems(const std::vector<std::string>& problems,
                   ErrorCode code = ErrorCode::kInvalidArgument);

}  // namespace plumb::configs
