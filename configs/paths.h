// Where the files of a recipe lie: what stands in the recipe is looked for in its own folder first,
// then in the working folder; what comes by --set the other way round.
//
// Purpose: a recipe starts from any folder, and what is missing is named by the full paths that
// were tried.
// Thread safety: pure functions of the configuration and the file system. Errors: kNotFound of
// RefuseMissingFiles; elsewhere a missing file is a sentence.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

// Rows that the program makes itself stand under these names where a file could: "arithmetic"
// (sums) and "tiny_texts" (a small world in sentences, code and dialogues).
bool IsGenerated(std::string_view data);

// Of a recipe that a recipe with run.stages runs: the model folder of an earlier stage, by its
// name.
inline constexpr std::string_view kOfStage = "stage:";

// Relative paths of options whose unit is file or folder: one that leads somewhere from the folder
// of `recipe`, and by --set (says `origins`) nowhere from the working folder, becomes that place,
// in full; so a run folder remembers it. All others stay as they are, but for the bare name of a
// program (of an environment, an agent or a reward part) that is a file there: in full, since by a
// name alone it would be looked for in PATH. Those in the recipe that a
// run keeps in its folder are of the folder that the run was started in first (places/run_start.h),
// then of the working folder; what it names in full and was moved with it is where it is now. A
// sentence for each path that leads to two places: which of them is
// taken.
std::vector<std::string> FindBesideRecipe(Config& config, const std::string& recipe,
                                          const Origins& origins = {});

// Of a recipe that goes on with the run in `run_folder`: paths that lead nowhere from here, but
// somewhere from the folder that the run was started in, or with it to where it was moved, become
// that place, in full.
void FindWhereRunBegan(Config& config, const std::string& run_folder);

// Paths of `config` that lead where those of the run's own recipe lead (`stored`, the text of its
// config.toml) as that says them: a run that goes on from another folder keeps its recipe, and the
// digest that is made of it.
void SayPathsAsRun(Config& config, const std::string& run_folder, const std::string& stored);

// `path` as a recipe says it that is written to the file `recipe` (empty: to no file), so that it
// leads to the same place from every working folder (FindBesideRecipe): relative to the recipe's
// folder, so that both may be moved together; in full where they share no folder below the root or
// not their file system. Names of generated rows and an empty path stay. The last name of the path
// is not followed where it is a link: its ending says what the file is.
std::string PathInRecipe(const std::string& path, const std::string& recipe);

// A sentence for each of the data, model, environment and reward options that leads nowhere, with
// the full paths tried.
std::vector<std::string> MissingFiles(const Config& config, const std::string& recipe);

// kNotFound with all of these sentences, if there are any.
void RefuseMissingFiles(const Config& config, const std::string& recipe);

}  // namespace plumb::configs
