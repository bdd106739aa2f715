#include "learner/algorithms/batch_metrics.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/base/log.h"

namespace plumb::learner {

bool Usable(const Trajectory& t) { return t.scored && t.finish != FinishReason::kAborted; }

bool RewardsDiffer(std::span<const TrajectoryGroup> groups, bool within_prompts) {
  const double* first = nullptr;
  for (const auto& group : groups) {
    if (within_prompts) first = nullptr;
    for (const auto& t : group.trajectories) {
      if (!Usable(t)) continue;
      if (!first) first = &t.reward;
      if (t.reward != *first) return true;
    }
  }
  return false;
}

bool RecordedLogprobsAreFinite(const Trajectory& t) {
  for (size_t i = 0; i < t.logprobs.size(); ++i) {
    if (!t.loss_mask[i] || std::isfinite(t.logprobs[i])) continue;
    LogWarning("answer " + std::to_string(t.sample) + " of version " +
               std::to_string(t.policy_versions.empty() ? -1 : t.policy_versions[i]) +
               " has a log-prob that is not finite at token " + std::to_string(i) +
               ": the update is skipped");
    return false;
  }
  return true;
}

void AddBatchMetrics(std::span<const TrajectoryGroup> groups,
                     std::map<std::string, double>& metrics) {
  double sum = 0, squares = 0, length_sum = 0, length_min = 0, length_max = 0;
  int64_t generated = 0, scored = 0, unscored = 0, clipped = 0, zero_std = 0, dropped = 0;
  int64_t conversations = 0, turns = 0, calls = 0, failed_calls = 0;
  double expert_bytes = 0, expert_tokens = 0;
  std::map<std::string, std::pair<double, int64_t>> parts;
  for (const auto& group : groups) {
    // dropped by an older Plumb, which kept no answers
    if (group.trajectories.empty()) unscored += group.lease.num_samples;
    bool equal = true;
    const double* first = nullptr;
    for (const auto& t : group.trajectories) {
      expert_bytes += static_cast<double>(t.experts.bytes.size());
      expert_tokens += static_cast<double>(t.experts.tokens());
      if (t.finish != FinishReason::kAborted) {
        const auto length = static_cast<double>(t.policy_length());
        length_min = generated == 0 ? length : std::min(length_min, length);
        length_max = std::max(length_max, length);
        length_sum += length;
        ++generated;
        clipped += t.finish == FinishReason::kLength;
        conversations += !t.turns.empty();
        turns += std::ssize(t.turns);
        for (const Turn& turn : t.turns) calls += turn.called, failed_calls += turn.failed_call;
      }
      if (!Usable(t)) {
        ++unscored;
        continue;
      }
      ++scored;
      sum += t.reward;
      squares += t.reward * t.reward;
      if (!first) first = &t.reward;
      equal = equal && t.reward == *first;
      for (const auto& part : t.rewards) {
        if (part.scope != RewardScope::kTrajectory) continue;  // one of the answer has their sum
        parts[part.name].first += part.value;
        parts[part.name].second += 1;
      }
    }
    if (first) zero_std += equal;
    else ++dropped;
  }
  metrics["reward/zero_std_groups"] = static_cast<double>(zero_std);
  metrics["reward/dropped_groups"] = static_cast<double>(dropped);
  metrics["reward/unscored"] = static_cast<double>(unscored);
  if (conversations > 0) {
    const auto n = static_cast<double>(conversations);
    metrics["turns/mean"] = static_cast<double>(turns) / n;
    metrics["tools/call_frequency"] = static_cast<double>(calls) / n;
    metrics["tools/failure_frequency"] =
        calls > 0 ? static_cast<double>(failed_calls) / static_cast<double>(calls) : 0;
  }
  if (expert_tokens > 0) metrics["moe/replay_bytes"] = expert_bytes / expert_tokens;
  if (scored > 0) {  // without a score nothing was measured, and a 0 would read as a measurement
    const auto n = static_cast<double>(scored);
    metrics["reward/mean"] = sum / n;
    metrics["reward/std"] = std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n)));
  }
  for (const auto& [name, part] : parts)
    metrics["reward/" + name + "/mean"] = part.first / static_cast<double>(part.second);
  if (generated > 0) {
    const auto n = static_cast<double>(generated);
    metrics["response_length/mean"] = length_sum / n;
    metrics["response_length/min"] = length_min;
    metrics["response_length/max"] = length_max;
    metrics["response_length/clipped"] = static_cast<double>(clipped) / n;
  }
}

}  // namespace plumb::learner
