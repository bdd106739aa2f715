#include "run/session/prompt_room.h"

#include <iterator>

#include "common/base/error.h"
#include "common/record/task_tokens.h"

namespace plumb::run {

PromptRoom RoomForPrompts(const configs::Config& config, const policy_model::ModelShape& shape) {
  const int64_t answer = config.rollout.max_new_tokens, left = shape.max_positions - answer;
  const std::string beside = "beside rollout.max_new_tokens = " + std::to_string(answer);
  const std::string positions = "the model's " + std::to_string(shape.max_positions) + " positions";
  if (left < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                positions + " leave no token for a prompt " + beside +
                    ": lower rollout.max_new_tokens" +
                    (config.model.path.empty() ? " or raise model.max_positions" : ""));
  }
  if (config.data.max_prompt_tokens <= left) {
    return {config.data.max_prompt_tokens,
            "data.max_prompt_tokens is " + std::to_string(config.data.max_prompt_tokens)};
  }
  return {left, positions + " leave " + std::to_string(left) + " for a prompt " + beside};
}

FitCounts FitPrompts(const PromptRoom& room, configs::OverlongPolicy policy,
                     const std::string& where, std::vector<Prompt>& prompts) {
  const auto longest = static_cast<std::ptrdiff_t>(room.tokens);
  FitCounts counts;
  std::vector<Prompt> kept;
  for (Prompt& prompt : prompts) {
    std::vector<int32_t>& tokens = prompt.tokens;
    if (std::ssize(tokens) > longest) {
      if (policy == configs::OverlongPolicy::kError) {
        throw Error(ErrorCode::kInvalidArgument,
                    "a prompt has " + std::to_string(tokens.size()) + " tokens, " + room.bound +
                        ": make room for it, or set data.overlong to drop, left or right",
                    where);
      }
      if (policy == configs::OverlongPolicy::kDrop) {
        ++counts.left_out;
        continue;
      }
      ++counts.cut;
      if (policy == configs::OverlongPolicy::kLeft) CutFront(static_cast<size_t>(longest), tokens);
      else tokens.resize(static_cast<size_t>(longest));
    }
    kept.push_back(std::move(prompt));
  }
  prompts = std::move(kept);
  return counts;
}

}  // namespace plumb::run
