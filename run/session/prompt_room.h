// How many tokens a prompt may have, so that a whole answer fits behind it.
//
// Purpose: the engine refuses a prompt that has no room for rollout.max_new_tokens more tokens
// within the model's positions, and a refused prompt is never answered. So the room is known before
// anything is generated: prompts that are longer follow data.overlong like those beyond
// data.max_prompt_tokens.
// Thread safety: pure functions. Errors: kInvalidArgument where no prompt fits, with both numbers
// and what to lower; under data.overlong = "error" for the first prompt that is too long.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"
#include "policy_model/families/model_config.h"

namespace plumb::run {

struct PromptRoom {
  int64_t tokens = 0;
  std::string bound;  // "data.max_prompt_tokens is 512", or what the model's positions leave
};

PromptRoom RoomForPrompts(const configs::Config& config, const policy_model::ModelShape& shape);

struct FitCounts {
  int64_t left_out = 0, cut = 0;
};

// data.overlong over prompts that no file was read for. `where`: their name in an error.
FitCounts FitPrompts(const PromptRoom& room, configs::OverlongPolicy policy,
                     const std::string& where, std::vector<Prompt>& prompts);

}  // namespace plumb::run
