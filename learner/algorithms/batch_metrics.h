// Reward and length figures of a batch, the same for every algorithm that learns from scored
// groups.
//
// Thread safety: pure functions.
#pragma once

#include <map>
#include <span>
#include <string>

#include "common/record/trajectory.h"

namespace plumb::learner {

// An answer that may be trained on: scored, and finished by the actor.
bool Usable(const Trajectory& trajectory);

// False, with a line in the log that names the answer, when a log-prob recorded for a trained token
// is not finite: an infinite one can hide behind the clip, so the loss alone does not show it.
bool RecordedLogprobsAreFinite(const Trajectory& trajectory);

// Two usable answers have different rewards; `within_prompts`: two to the same prompt.
bool RewardsDiffer(std::span<const TrajectoryGroup> groups, bool within_prompts);

// reward/*, response_length/*, turns/* and tools/* of docs/metrics.md. Rewards are those of answers
// that train, lengths those of answers that were generated; where there are none, the name is
// absent.
void AddBatchMetrics(std::span<const TrajectoryGroup> groups,
                     std::map<std::string, double>& metrics);

}  // namespace plumb::learner
