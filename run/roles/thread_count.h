// Threads that a recipe asks for, beside the processors that there are for them.
//
// Purpose: threads without a processor of their own wait for each other, and a step then takes a
// hundred times as long; a run says so where it begins. Thread safety: pure functions of the recipe
// and of this process's affinity. Errors: none.
#pragma once

#include <string>

#include "configs/config.h"

namespace plumb::run {

// Processors that this process may use (sched_getaffinity), at least 1.
int ProcessorsAllowed();

// What is wrong with run.threads and what to do; empty: nothing.
std::string TooManyThreads(const configs::Config& config, int processors);

}  // namespace plumb::run
