#include "common/trajectory.h"

#include <cmath>
#include <string>

#include "common/error.h"

namespace plumb {
namespace {

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "trajectory is inconsistent: " + what);
}

}  // namespace

int32_t Trajectory::prompt_length() const {
  return !segments.empty() && segments.front().origin == Origin::kPrompt ? segments.front().end : 0;
}

int32_t Trajectory::completion_length() const {
  return static_cast<int32_t>(tokens.size()) - prompt_length();
}

void CheckInvariants(const Trajectory& t) {
  const size_t n = t.tokens.size();
  if (t.loss_mask.size() != n) Broken("loss_mask has " + std::to_string(t.loss_mask.size()) + " of " + std::to_string(n));
  if (t.logprobs.size() != n) Broken("logprobs has " + std::to_string(t.logprobs.size()) + " of " + std::to_string(n));
  if (t.policy_versions.size() != n) {
    Broken("policy_versions has " + std::to_string(t.policy_versions.size()) + " of " + std::to_string(n));
  }
  int32_t at = 0;
  for (const Segment& s : t.segments) {
    if (s.begin != at || s.end < s.begin) Broken("segments have a hole or overlap at token " + std::to_string(at));
    if (static_cast<size_t>(s.end) > n) Broken("a segment ends at " + std::to_string(s.end) + " of " + std::to_string(n));
    const bool policy = s.origin == Origin::kPolicy;
    for (int32_t i = s.begin; i < s.end; ++i) {
      const size_t k = static_cast<size_t>(i);
      if (t.tokens[k] < 0) Broken("token " + std::to_string(i) + " is negative");
      if (!std::isfinite(t.logprobs[k])) Broken("log-prob of token " + std::to_string(i) + " is not finite");
      if (t.logprobs[k] > 0 || (!policy && t.logprobs[k] != 0)) {
        Broken("log-prob of token " + std::to_string(i) + " is out of place");
      }
      if (t.loss_mask[k] > 1 || (!policy && t.loss_mask[k] != 0)) Broken("loss mask at token " + std::to_string(i));
      if (policy != (t.policy_versions[k] >= 0)) Broken("policy version at token " + std::to_string(i));
    }
    at = s.end;
  }
  if (static_cast<size_t>(at) != n) Broken("segments end at " + std::to_string(at) + " of " + std::to_string(n));
  for (const RewardPart& part : t.rewards) {
    if (!std::isfinite(part.value) || !std::isfinite(part.weight)) Broken("reward part '" + part.name + "' is not finite");
    if (part.index < 0 || static_cast<size_t>(part.index) > n) Broken("reward part '" + part.name + "' has a bad index");
  }
  if (!std::isfinite(t.reward)) Broken("reward is not finite");
}

void CheckInvariants(const TrajectoryGroup& g) {
  if (g.trajectories.size() != static_cast<size_t>(g.lease.num_samples)) {
    Broken("group of lease " + std::to_string(g.lease.lease_id) + " has " + std::to_string(g.trajectories.size()) +
           " answers instead of " + std::to_string(g.lease.num_samples));
  }
  for (size_t i = 0; i < g.trajectories.size(); ++i) {
    if (g.trajectories[i].sample != i) Broken("samples are not in order");
    CheckInvariants(g.trajectories[i]);
  }
}

}  // namespace plumb
