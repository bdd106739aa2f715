// What becomes of a training group in which answers have no score: the one place that decides it.
//
// Purpose: a reward part may fail, and an actor may give an answer up. The reward role only says so
// (Trajectory::scored and unscored_reason, FinishReason::kAborted); the table asks here, and `plumb
// reward test` shows the same verdict.
//   An answer that was never generated is no failure of a reward: the rest of its group trains
//   without it. A group that has nothing but such answers is dropped whatever the policy says: the
//   same weights would give it up again. An answer that was generated and has no score goes by
//   reward.on_failure.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "configs/choices.h"
#include "replay/store/store.h"

namespace plumb::replay {

// kPenalty: the group is stored as it came, the reward role has filled the score in; what has none
// all the same the learner leaves out. kDropGroup: none of the group trains. kRequeue: the prompt
// is handed out again, a bounded number of times, then the group is dropped.
using configs::OnFailure;

enum class Fate : uint8_t { kKeep, kDrop, kRequeue };

struct Verdict {
  Fate fate = Fate::kKeep;
  int64_t unscored = 0;  // answers without a score, those never generated among them
  int64_t aborted = 0;   // never generated
  std::string
      cause;  // of a group that is not kept: "unscored" | "aborted", the name of its counter
  std::string reason;  // of a group that is not kept: the first of its answers' that led to it
};

// `requeues`: how often the prompt was handed out again already.
Verdict JudgeScores(const GroupScore& group, OnFailure policy, uint32_t requeues,
                    uint32_t max_requeues);

// What is stored of a group that is dropped: no answer of it has a score, and each says why.
GroupScore AsDropped(GroupScore group, const std::string& reason);

// All answers that could train have the same reward: nothing to learn from under an advantage that
// compares them.
bool EqualRewards(const GroupScore& group);

}  // namespace plumb::replay
