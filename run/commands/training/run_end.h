// What `plumb train` says when a run has ended, and its exit code; and what all its processes have
// in common before that.
//
// Thread safety: one caller, the main thread of its process. Errors: none of their own; what went
// wrong is said on standard error and in the exit code (docs/recipes.md).
#pragma once

#include <exception>
#include <string>

#include "configs/config.h"
#include "learner/loop/step_loop.h"
#include "learner/ranks/ranks.h"
#include "run/roles/roles.h"
#include "run/session/session.h"

namespace plumb::run {

// What a stop says before the first update.
inline constexpr char kNothingTrained[] = "nothing was trained; --resume goes on";

// The options of a role that StopRequested() stops.
RunOptions OptionsOf(bool resume, bool newest, bool quiet);

// StopRequested(), as a question.
bool Stopped();

// Says that the run was stopped before it trained; its exit code.
int SayStopped();

// What `work` of a rank throws, the other ranks hear. `ranks`: nullptr where there is one.
template <class Work>
auto AsRank(learner::Ranks* ranks, const Work& work) {
  try {
    return work();
  } catch (const std::exception& e) {
    if (ranks) ranks->SayEnded(e.what());
    throw;
  }
}

// "2 of 3 updates were skipped: not finite".
std::string SkippedText(const configs::Config& config, const learner::LearnerResult& result);
// Why a run's numbers are no result, and what to do: no update was applied, the last ones were
// skipped, or what was held out gives numbers that are not finite; empty: none of these.
std::string WhySpoilt(const configs::Config& config, const learner::LearnerResult& result);

// Says results and places of a run that came to its end, and whether that is what was wanted: its
// exit code.
int Conclude(const Session& session, const RunSummary& summary, bool quiet);

}  // namespace plumb::run
