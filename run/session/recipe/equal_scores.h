// What is said where a reward part gives every answer the same score: it teaches nothing then, and
// most often it was not given what it expects.
//
// Purpose: `plumb reward test` and the first step of a run say so in the same words. A function
// written for texts finds nothing in a list of messages and raises nothing either. Thread safety:
// functions that read the part's Python file at most. Errors: none.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"

namespace plumb::run {

// "reward part 'mine' gave 0.000 to all 12 answers, ...", of a Python function in TRL's form that
// was given lists with this form and how to change it. `messages`: the prompts are messages;
// `right`: all the answers are known to be right, so that a good score of all is no fault.
std::string EqualScores(const configs::RewardPartConfig& part, double value, size_t answers,
                        bool messages, bool right = false);

// A line for each part of the recipe whose scores of these answers, two at least, are all one.
std::vector<std::string> PartsWithEqualScores(const configs::Config& config,
                                              std::span<const TrajectoryGroup> groups,
                                              bool messages);

}  // namespace plumb::run
