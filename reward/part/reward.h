// What a reward function is: a group of answers in, one score an answer out.
//
// Purpose: the one interface behind rules, shared objects and programs (DESIGN.md 1, step 5). The
// scorer (reward/scorer.h) combines several of them. A score is a value, a reason why there is
// none, or "does not apply"; a failure is never a 0.
// Thread safety: Score() is safe for concurrent calls. Ownership: results own their strings.
// Errors: Score() reports what a function did through PartScore and throws only when the function
// can never be called again (FunctionDisabled); constructors throw Error(kInvalidArgument |
// kNotFound | kUnsupported).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/record/failure.h"
#include "common/record/ports.h"
#include "common/record/trajectory.h"

namespace plumb::reward {

// Why there is no score.
using plumb::Failure;
using plumb::FailureName;

// One answer's score by one function.
struct PartScore {
  double value = 0;  // finite; valid when scored() and !skipped
  // the function does not apply to this answer
  bool skipped = false;
  Failure failure = Failure::kNone;
  std::string reason;                                   // one line; non-empty exactly when failed
  std::vector<std::pair<std::string, double>> details;  // named sub-scores, reported with weight 0
  // Where the value is a sum of what turns got: segment of the answer and its share.
  std::vector<std::pair<int32_t, double>> turns = {};
  // of the code that made it; empty: the function's
  std::string digest = {};

  bool scored() const { return failure == Failure::kNone; }
  static PartScore Of(double value) { return {.value = value}; }
  static PartScore Skipped() { return {.skipped = true}; }
  static PartScore Failed(Failure failure, std::string reason) {
    return {.failure = failure, .reason = std::move(reason)};
  }
};

// Thrown once a function broke its process too often (five times in 60 s): the run has to stop and
// say so. Its code is kInvalidArgument, i.e. not to be tried again.
class FunctionDisabled : public Error {
 public:
  explicit FunctionDisabled(const std::string& message, const std::string& where)
      : Error(ErrorCode::kInvalidArgument, message, where) {}
};

// A name under which a function asks for what the row says is right: a column or, where the row has
// no such column, the ground truth.
struct TruthName {
  std::string name;
  bool required = false;  // the function has no value of its own for it
  bool operator==(const TruthName&) const = default;
};

class RewardFunction {
 public:
  virtual ~RewardFunction() = default;
  // The part's name in metrics, e.g. "correct".
  virtual const std::string& name() const = 0;
  // Which code computes it: "rule:answer/1:<options hash>" or "sha256:<file>". Stored with each
  // score.
  virtual const std::string& digest() const = 0;
  // Exactly group.trajectories.size() scores, in their order. Returns at the deadline at the latest
  // (+1 s).
  virtual std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) = 0;
  // True if Score() waits for another process: the scorer then runs it beside the others.
  virtual bool slow() const { return false; }
  // Empty: it asks for none, or it is not known (rules: ComparesWithTruth).
  virtual std::vector<TruthName> truths() const { return {}; }
};

// The prompt as a reward function sees it: Prompt::text, or the messages as a JSON array of {role,
// content, ...}.
std::string PromptText(const Prompt& prompt);
// The answer without trailing special tokens (<eos>, </s>, <|im_end|>, <|endoftext|>, <|eot_id|>,
// ...) and, with `spaces`, white space around them.
std::string_view StripEndTokens(std::string_view completion, bool spaces = true);

}  // namespace plumb::reward
