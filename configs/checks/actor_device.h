// Where actors compute: rollout.device and rollout.tp, resolved for each of their processes.
//
// Purpose: one answer for the plan, the checks at the start of a run and the roles themselves.
// Thread safety: pure functions. Errors: none; REQUIRES a recipe that was checked.
#pragma once

#include <cstdint>

#include "common/base/device.h"
#include "configs/config.h"

namespace plumb::configs {

// Of rank `rank` of actor `actor`. Of "cuda" a GPU each, in order, behind those of the learner's
// `learners` ranks on this machine; of "cuda:1" that one for all actors, whose further ranks take
// those behind it. Empty: where the learner computes.
Device ActorDevice(const Config& config, int64_t learners, int64_t actor = 0, int64_t rank = 0);
// The same, where run.parallel says how many ranks the learner has.
Device ActorDevice(const Config& config);

// Actors have another device than the learner, so that neither reads the other's memory in place.
bool ActorsApart(const Config& config, int64_t learners);
bool ActorsApart(const Config& config);

// Actor processes that share a device.
int64_t ActorsADevice(const Config& config);

}  // namespace plumb::configs
