// What a run says of itself at its end: its evaluations, what was lost on the way, summary.json.
//
// Thread safety: pure functions. Errors: none. Units: nats a token, shares of 1, seconds.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "configs/config.h"
#include "learner/loop/learner_loop.h"
#include "run/roles/roles.h"

namespace plumb::run {

// What an evaluation found, in the words of the algorithm: "accuracy 0.500, margin 0.1, ... (8
// pairs)".
std::string HeldOutText(const configs::Config& config, const learner::EvalResult& result);
// What eval.bar is held against: the share solved or ranked right; of demonstrations, of which
// nothing is solved, 1 / perplexity.
double BarValue(const learner::EvalResult& result);
// The same in words: "pass@1".
std::string BarName(const configs::Config& config);

// What was dropped and what has no score, on one line, from a run's counters.
std::string LossLine(const std::map<std::string, int64_t>& counters);
// "equal rewards: 41.3 % of 128 groups, which had nothing to tell"; empty: no group had a score, or
// answers are not compared within groups.
std::string EqualLine(const learner::RewardTally& rewards);

// A life without a step of its own has nothing to add to the summary of the life that ended the run
// (`before`, a text; "" or damaged: none): that one counted what was lost and how long it took.
bool SaysMore(const std::string& before, const RunSummary& summary);

// summary.json as text.
std::string SummaryJson(const RunSummary& summary);

}  // namespace plumb::run
