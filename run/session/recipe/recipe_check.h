// A recipe as a verb is about to use it: all that is wrong in one error, before data, models and
// programs are touched.
//
// Purpose: unknown keys and contradictions (configs/config.h), kinds and options of reward parts
// and of the environment,
// and files that are not there (configs/paths.h), together. What only a file's content shows comes
// later.
// Thread safety: pure functions of the recipe, the file system and the environment. Errors:
// kInvalidArgument with every problem; kNotFound where nothing but files is missing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::run {

// Whether what a part needs of this machine (keys, variables) is looked for.
enum class Surroundings : uint8_t { kNeeded, kIgnored };

// What can be said of reward parts without starting a program or reading a model; a sentence each.
// Parts without a kind are passed over where `kinds` is false.
std::vector<std::string> PartProblems(const configs::RewardConfig& rewards,
                                      Surroundings surroundings, bool kinds = true);

// Of what may be missing, what a verb reads: all of it, or a Config with nothing else in it.
using ReadOf = std::function<configs::Config(const configs::Loaded&)>;
// For a verb that asks for scores only: reward parts, and no model or prompts; held-out rows where
// `heldout`.
configs::Config PartsAlone(const configs::Loaded& recipe, bool heldout = false);
// LoadRecipe, with a line on stderr for each path that leads to two places.
configs::Loaded LoadAndSayPaths(const std::string& path, const std::vector<std::string>& overrides);
// LoadAndSayPaths with all of these checks. `change`: what the verb's own arguments make of the
// recipe.
configs::Loaded CheckedRecipe(const std::string& path, const std::vector<std::string>& overrides,
                              const ReadOf& read_of = nullptr,
                              const std::function<void(configs::Config&)>& change = nullptr,
                              Surroundings surroundings = Surroundings::kNeeded);

}  // namespace plumb::run
