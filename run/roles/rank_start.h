// Before a rank trains: which ranks there are to be, and that they were started alike.
//
// Thread safety: one thread. Errors: kInvalidArgument and kUnsupported for what contradicts itself;
// RankLost.
#pragma once

#include <optional>

#include "configs/config.h"
#include "learner/ranks/ranks.h"
#include "learner/ranks/rendezvous.h"

namespace plumb::run {

// The ranks that are to be: those of the environment; nullopt: those of run.parallel, which the
// supervisor starts.
std::optional<learner::RankEnvironment> RanksOf(const configs::Config& config);

// Every rank was given a recipe of its own, and rank 0's is the run's: all ranks throw where one
// differs, naming the first option that does. Not compared is what may differ from machine to
// machine: where the run lies, threads, device and memory.
void CheckSameRecipe(learner::Ranks& ranks, const configs::Config& config);

}  // namespace plumb::run
