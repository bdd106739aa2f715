// The newest checkpoint of a run's folder, and the words that say how to go on from it.
//
// Purpose: what a resume begins with, what stands for a run that has no model yet, what a person
// who ended a run at once is told. Thread safety: none is needed, a save in between is seen or not.
// Errors: those of the file system.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace plumb::run {

// The step that it goes on with, of those in `checkpoints` that were written to their end; nullopt:
// none, the warm start is not over.
std::optional<int64_t> NewestCheckpoint(const std::string& checkpoints);

// "the newest checkpoint is step 4: go on with build/plumb train --resume --out RUN"
std::string HowToGoOn(const std::string& run);

}  // namespace plumb::run
