// What is said where a reward part gives every answer the same score: it teaches nothing then, and
// most often it was not given what it expects.
//
// Purpose: `plumb reward test` and the first step of a run say so in the same words. A function
// written for texts finds nothing in a list of messages and raises nothing either. Thread safety:
// pure functions. Errors: none.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"

namespace plumb::run {

// "reward part 'mine' gave 0.000 to all 12 answers, ...", with the form that a Python function was
// given and how to change it. `messages`: the prompts are messages.
std::string EqualScores(const configs::RewardPartConfig& part, double value, size_t answers,
                        bool messages);

// A line for each part of the recipe whose scores of these answers, two at least, are all one.
std::vector<std::string> PartsWithEqualScores(const configs::Config& config,
                                              std::span<const TrajectoryGroup> groups,
                                              bool messages);

}  // namespace plumb::run
