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

// The step of the newest of those in `checkpoints` that were written to their end; nullopt: none,
// the warm start is not over.
std::optional<int64_t> NewestCheckpoint(const std::string& checkpoints);

// The step of the newest that a run is taken up from: it holds the optimizer
// (checkpoint.optimizer_every), or cannot be read, which the resume will say.
std::optional<int64_t> ResumeStep(const std::string& checkpoints);

// The newest holds no moments of the optimizer, with which a run that goes on from it would begin
// anew (checkpoint.optimizer). False where there is none or it cannot be read.
bool NewestLacksMoments(const std::string& checkpoints);

// "the newest checkpoint is step 4: go on with build/plumb train --resume --out RUN"
std::string HowToGoOn(const std::string& run);

}  // namespace plumb::run
