// How many prompts lack the ground truth that a reward function of the user's asks for by name.
//
// Purpose: such a function scores an answer that it has nothing to compare with, and nobody hears
// of it: a run and `plumb reward test` say it at their start. Rules report such answers as failures
// themselves (CheckTruths in run/session/session.h).
// Thread safety: pure functions; TruthsMissedByPython starts each function's interpreter once.
// Errors: kInvalidArgument where no prompt at all has what a function cannot do without; a function
// that does not start here is named in a note.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"
#include "reward/part/reward.h"

namespace plumb::run {

// "1 of 2 prompts have no ground truth, which reward part 'mine' takes as 'answer': ...", with the
// column that looks like one (reward/part/truth.h); empty: each prompt has what `truths`
// (RewardFunction::truths) name, as a column or as its ground truth.
std::string MissingTruths(const std::string& part, const std::vector<reward::TruthName>& truths,
                          std::span<const Prompt* const> prompts);

// One such line for each Python part of the recipe that misses some; starts none where all prompts
// have a ground truth.
std::vector<std::string> TruthsMissedByPython(const configs::RewardConfig& rewards,
                                              const std::vector<Prompt>& prompts);

}  // namespace plumb::run
