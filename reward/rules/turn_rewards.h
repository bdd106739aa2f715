// Rewards that an environment gave, turn by turn (docs/agents.md).
//
// Purpose: kind "environment": what it said of each turn counts there (PPO), their sum is the
// answer's (GRPO). An answer whose environment gave none has 0; one without an environment is none
// of its business. Thread safety: as reward/rules/rules.h. Errors: options are refused.
#pragma once

#include "configs/config.h"
#include "reward/rules/rule.h"

namespace plumb::reward {

RuleParts MakeTurnRewards(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
