// Answers that train nothing: how many of a batch, why, and when a run has to stop for them.
//
// Purpose: a step without one score trains nothing, and a run that goes on like that only costs; an
// evaluation without one answer is no evaluation. The error names the true cause: weights that are
// not finite any more (kNonFinite), prompts that the engine refuses (kInvalidArgument), an
// environment or a reward part that fails (RewardFailed).
// Thread safety: none. Ownership: values only.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/error.h"
#include "common/record/trajectory.h"

namespace plumb::learner {

// Every answer of several steps failed in a reward part, or of these or an evaluation in its
// environment. The command line ends with an exit code of
// its own for it (run/commands/cli.h).
class RewardFailed : public Error {
 public:
  RewardFailed(const std::string& message, const std::string& where)
      : Error(ErrorCode::kUnavailable, message, where) {}
};

struct Losses {
  int64_t answers = 0;
  int64_t unscored = 0;     // without a score, those never generated among them
  int64_t aborted = 0;      // never generated: FinishReason::kAborted
  int64_t non_finite = 0;   // of these, for logits that are not finite
  int64_t environment = 0;  // of the aborted: their environment failed
  // of the first answer that was generated and has no score; else of the first that was not
  // generated
  std::string reason;
};
Losses LossesOf(std::span<const TrajectoryGroup> groups);

// Throws when not one answer was generated. `what`: "the evaluation of version 3".
void CheckGenerated(const Losses& losses, const std::string& what);

// Steps in a row that had no answer with a score.
class ScorelessSteps {
 public:
  static constexpr int64_t kMax = 3;
  // The step's own groups. Throws at the kMax-th step in a row, and at once where the weights are
  // at fault: they would not change.
  void Add(std::span<const TrajectoryGroup> groups, int64_t step);

 private:
  int64_t in_a_row_ = 0;
};

}  // namespace plumb::learner
