// Where the files of a recipe lie: as the path says from the working folder, else from the recipe's
// own folder.
//
// Purpose: a recipe starts from any folder, and what is missing is named by the full paths that
// were tried.
// Thread safety: pure functions of the configuration and the file system. Errors: none; a missing
// file is a sentence.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

// Relative paths of options whose unit is file or folder: one that leads nowhere from the working
// folder and somewhere from the folder of `recipe` becomes that place, in full; so a run folder
// remembers it. All others stay as they are.
void FindBesideRecipe(Config& config, const std::string& recipe);

// A sentence for each of the data and model options that leads nowhere, with the full paths tried.
std::vector<std::string> MissingFiles(const Config& config, const std::string& recipe);

}  // namespace plumb::configs
