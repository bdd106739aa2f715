// Columns that usually hold the right answer, where rows have none under a name of its own.
//
// Purpose: one list of names for a first recipe (recipe_proposal.h) and for `plumb eval`. Thread
// safety: pure functions but for the file that is read. Errors: those of the import;
// ImportWithTruths throws kInvalidArgument where no row has a right answer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "replay/datasets/rows/dataset_import.h"

namespace plumb::run {

// How many of them know what a rule can compare an answer with.
int64_t CountTruths(const std::vector<Prompt>& prompts);
// A rule can compare an answer with what each of them knows.
bool AllTruths(const std::vector<Prompt>& prompts);

// Of rows that have no ground truth, a column that is usually one; "": none that all of them have.
std::string UsualTruth(const std::vector<Prompt>& prompts);

// The prompts of `file` with their right answers; those of a usual column where the rows and
// `options` name none, which `said` then tells: "; the column 'solution' is taken as ...".
replay::ImportedPrompts ImportWithTruths(const std::string& file, replay::ImportOptions options,
                                         std::string& said);

}  // namespace plumb::run
