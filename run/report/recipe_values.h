// The options of a run's config.toml as flat names with values.
//
// Purpose: for whoever shows a run: the page's headline, TensorBoard's table of runs. Reads the
// form that configs::ToToml writes, a line an option; lines of another form are left out, so that a
// run of another version of Plumb can still be shown. To train by, a recipe is read by configs.
// Thread safety: pure function.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>

namespace plumb::run {

// Lists and tables as their TOML text.
using RecipeValue = std::variant<bool, double, std::string>;
// By full name: "algorithm.name", "reward.parts.0.kind".
using RecipeValues = std::map<std::string, RecipeValue>;

RecipeValues ReadRecipeValues(std::string_view toml);

// The text of one option; empty when it is not there or is no text.
std::string TextOf(const RecipeValues& values, const std::string& name);
// The number of one option; `otherwise` when it is not there or is none.
double NumberOf(const RecipeValues& values, const std::string& name, double otherwise);

}  // namespace plumb::run
