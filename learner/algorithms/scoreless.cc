#include "learner/algorithms/scoreless.h"

#include <algorithm>

#include "common/record/abort_reason.h"
#include "learner/algorithms/batch_metrics.h"

namespace plumb::learner {
namespace {

bool NothingGenerated(const Losses& losses) {
  return losses.answers > 0 && losses.aborted == losses.answers;
}

[[noreturn]] void ThrowNonFinite(const Losses& losses, const std::string& what) {
  throw Error(
      ErrorCode::kNonFinite,
      "not one answer of " + what + " was generated: " + losses.reason +
          ". The weights are spoilt and were not saved: lower optimizer.learning_rate or set "
          "optimizer.grad_clip; --resume goes on from the last checkpoint",
      "learner");
}

}  // namespace

Losses LossesOf(std::span<const TrajectoryGroup> groups) {
  Losses losses;
  std::string aborted;
  for (const TrajectoryGroup& group : groups) {
    if (group.trajectories.empty()) {  // dropped by an older Plumb, which kept no answers
      losses.answers += group.lease.num_samples;
      losses.unscored += group.lease.num_samples;
    }
    for (const Trajectory& t : group.trajectories) {
      ++losses.answers;
      if (Usable(t)) continue;
      ++losses.unscored;
      const bool given_up = t.finish == FinishReason::kAborted;
      losses.aborted += given_up;
      losses.non_finite += given_up && t.unscored_reason.starts_with(kNonFiniteLogits);
      losses.environment += given_up && t.unscored_reason.starts_with(kEnvironmentFailed);
      std::string& first = given_up ? aborted : losses.reason;
      if (first.empty()) first = t.unscored_reason;
    }
  }
  if (losses.reason.empty()) losses.reason = aborted;
  return losses;
}

void CheckGenerated(const Losses& losses, const std::string& what) {
  if (!NothingGenerated(losses)) return;
  if (losses.non_finite > 0) ThrowNonFinite(losses, what);
  if (losses.environment == losses.aborted) {
    throw RewardFailed(
        "not one answer of " + what + " was generated, since each conversation failed in its " +
            losses.reason + ". Mend that, try it with `plumb env test`, then go on with --resume",
        "actor");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "not one answer of " + what + " was generated: " + losses.reason, "actor");
}

void ScorelessSteps::Add(std::span<const TrajectoryGroup> groups, int64_t step) {
  const Losses losses = LossesOf(groups);
  if (losses.unscored < losses.answers) {
    in_a_row_ = 0;
    return;
  }
  const std::string where = "step " + std::to_string(step);
  if (NothingGenerated(losses) && losses.non_finite > 0) ThrowNonFinite(losses, where);
  if (++in_a_row_ < kMax) return;
  const std::string steps = "the last " + std::to_string(in_a_row_) + " steps";
  CheckGenerated(losses, steps);
  const std::string reason =
      losses.reason.empty() ? "" : "; the first reason of this step: " + losses.reason;
  throw RewardFailed("not one answer of " + steps + " got a score, so they trained nothing" +
                         reason +
                         ". Mend that, try it with `plumb reward test`, then go on with --resume",
                     where);
}

}  // namespace plumb::learner
