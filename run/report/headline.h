// The head of a run's page: what was trained, how, when, by which Plumb, and what came of it.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "run/report/run_data.h"

namespace plumb::run {

// "grpo", SmolLM2-135M, the recipe's name, when it began, Plumb's version and commit: one line of
// HTML, of what is known.
std::string HeadlineHtml(const RunData& data);

// Held-out values before and after, steps, time, tokens, and what went wrong.
std::string TilesHtml(const RunData& data);

// Warm start and digests.
std::string FactsHtml(const RunData& data);

}  // namespace plumb::run
