#include "replay/store/unscored.h"

#include "common/base/error.h"

namespace plumb::replay {
namespace {

constexpr size_t kMaxReason = 1000;  // bytes: it is stored and logged once more for its group

std::string ReasonOf(const ScoredAnswer& t) {
  if (!t.unscored_reason.empty()) return t.unscored_reason.substr(0, kMaxReason);
  return t.aborted ? "never generated" : "unscored";
}

}  // namespace

Verdict JudgeScores(const GroupScore& group, OnFailure policy, uint32_t requeues,
                    uint32_t max_requeues) {
  Verdict verdict;
  const ScoredAnswer *failed = nullptr, *aborted = nullptr;
  for (const ScoredAnswer& t : group.answers) {
    if (t.scored && !t.aborted) continue;
    ++verdict.unscored;
    verdict.aborted += t.aborted;
    const ScoredAnswer*& first = t.aborted ? aborted : failed;
    if (first == nullptr) first = &t;
  }
  const auto end = [&](Fate fate, const char* cause, const ScoredAnswer& first) {
    verdict.fate = fate;
    verdict.cause = cause;
    verdict.reason = ReasonOf(first);
  };
  if (aborted != nullptr && verdict.aborted == static_cast<int64_t>(group.answers.size())) {
    end(Fate::kDrop, "aborted", *aborted);
  } else if (failed != nullptr && policy != OnFailure::kPenalty) {
    const bool again = policy == OnFailure::kRequeue && requeues < max_requeues;
    end(again ? Fate::kRequeue : Fate::kDrop, "unscored", *failed);
  }
  return verdict;
}

GroupScore AsDropped(GroupScore group, const std::string& reason) {
  for (ScoredAnswer& a : group.answers) {
    if (a.scored || a.unscored_reason.empty())
      a.unscored_reason = "its group was dropped: " + reason;
    a.scored = false;
    a.reward = 0;
  }
  group.dropped = reason;
  return group;
}

bool EqualRewards(const GroupScore& group) {
  const ScoredAnswer* first = nullptr;
  for (const ScoredAnswer& t : group.answers) {
    if (!t.scored || t.aborted) continue;
    if (first == nullptr) first = &t;
    if (t.reward != first->reward) return false;
  }
  return true;
}

}  // namespace plumb::replay
