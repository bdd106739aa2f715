#include "reward/rules/turn_rewards.h"

namespace plumb::reward {

RuleParts MakeTurnRewards(const configs::RewardPartConfig& part) {
  RuleOptions(part, {});
  return [](std::string_view, const Trajectory& t, const Prompt&) {
    if (t.turns.empty()) return PartScore::Skipped();
    PartScore score = PartScore::Of(0);
    for (const Turn& turn : t.turns) {
      if (!turn.reward) continue;
      score.value += *turn.reward;
      score.turns.emplace_back(turn.segment, *turn.reward);
    }
    return score;
  };
}

}  // namespace plumb::reward
