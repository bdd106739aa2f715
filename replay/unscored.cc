#include "replay/unscored.h"

#include "common/error.h"

namespace plumb::replay {
namespace {

bool Aborted(const Trajectory& t) { return t.finish == FinishReason::kAborted; }

constexpr size_t kMaxReason = 1000;  // bytes: it is stored and logged once more for its group

std::string ReasonOf(const Trajectory& t) {
  if (!t.unscored_reason.empty()) return t.unscored_reason.substr(0, kMaxReason);
  return Aborted(t) ? "never generated" : "unscored";
}

}  // namespace

Verdict JudgeScores(const TrajectoryGroup& group, OnFailure policy, uint32_t requeues,
                    uint32_t max_requeues) {
  Verdict verdict;
  const Trajectory *failed = nullptr, *aborted = nullptr;
  for (const Trajectory& t : group.trajectories) {
    if (t.scored && !Aborted(t)) continue;
    ++verdict.unscored;
    verdict.aborted += Aborted(t);
    const Trajectory*& first = Aborted(t) ? aborted : failed;
    if (first == nullptr) first = &t;
  }
  const auto end = [&](Fate fate, const char* cause, const Trajectory& first) {
    verdict.fate = fate;
    verdict.cause = cause;
    verdict.reason = ReasonOf(first);
  };
  if (aborted != nullptr && verdict.aborted == static_cast<int64_t>(group.trajectories.size())) {
    end(Fate::kDrop, "aborted", *aborted);
  } else if (failed != nullptr && policy != OnFailure::kPenalty) {
    const bool again = policy == OnFailure::kRequeue && requeues < max_requeues;
    end(again ? Fate::kRequeue : Fate::kDrop, "unscored", *failed);
  }
  return verdict;
}

TrajectoryGroup AsDropped(const TrajectoryGroup& group, const std::string& reason) {
  TrajectoryGroup dropped = group;
  for (Trajectory& t : dropped.trajectories) {
    if (t.scored || t.unscored_reason.empty()) t.unscored_reason = "its group was dropped: " + reason;
    t.scored = false;
    t.reward = 0;
  }
  return dropped;
}

bool EqualRewards(const TrajectoryGroup& group) {
  const Trajectory* first = nullptr;
  for (const Trajectory& t : group.trajectories) {
    if (!t.scored || Aborted(t)) continue;
    if (first == nullptr) first = &t;
    if (t.reward != first->reward) return false;
  }
  return true;
}

}  // namespace plumb::replay
