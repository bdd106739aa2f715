// The on-policy table of a run: prompts out, groups in, batches to the learner.
//
// Purpose: ports PromptSource, TrajectorySink and BatchSource over one Store.
//   Step s owns the training leases s * prompts_per_step .. + prompts_per_step. They are handed out once the learner
//   has asked for step >= s - max_staleness (0 under sync), so generation runs ahead by at most that many steps.
//   Weights: before step s the learner has published version s + version_base. Under sync a lease names exactly that
//   version; under async it names none, and a group whose oldest token was sampled by a version below
//   s + version_base - max_staleness is refused ("stale") and its lease handed out again.
//   Evaluation leases go out before training leases.
//   An actor is given its share of what is not answered yet (1 / actors), so that several work on one step.
//   Which prompt a lease carries, and which groups of earlier steps come with a step's own: replay/step_planner.h.
// What happens to a training group that is not wholly scored: replay/unscored.h decides (evaluation groups are always kept). A
//   dropped group completes its step like any other; the learner gets it with answers of which none has a score. All counted.
// Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): with refill_rounds > 0 a training group whose answers all have the same
//   reward is counted as dropped/equal_rewards and not stored; its lease goes out again with another prompt, at most
//   refill_rounds times, then the group is kept. Which prompt is a function of lease and round: a restart draws the same.
// Weights: the learner announces each version with its digest before it asks for the step that needs it. A group of that version
//   with another digest, or of a version that is not out yet, was sampled by weights that a learner had before it went back to a
//   checkpoint: it is refused ("other_weights"), or forgotten where it is stored, and its lease answered again. Equal bits keep
//   everything. Without announcements nothing is compared.
// Resume: steps from the cursor on of which every answered group was dropped are answered afresh, so that a run whose rewards were
//   away goes on once they are mended; likewise an evaluation without one scored answer.
// Leases: one lasts lease_timeout_ms from when it was handed out or its holder last said Renew.
// Thread safety: all methods may be called concurrently. Lock order: the table's mutex, then the store's.
// Ownership: borrows the store, which must outlive it; the only writer of groups to it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/mutex.h"
#include "common/ports.h"
#include "replay/leases.h"
#include "replay/step_planner.h"
#include "replay/store.h"
#include "replay/unscored.h"

namespace plumb::replay {

struct TableOptions {
  uint64_t seed = 1;
  bool shuffle = true;
  int64_t steps = 0;                 // train steps of the run; leases end there
  int64_t prompts_per_step = 32;
  int32_t samples_per_prompt = 8;
  bool sync = true;
  int64_t max_staleness = 0;         // versions; must be 0 under sync
  int64_t version_base = 0;
  int64_t lease_timeout_ms = 600'000;
  int64_t actors = 1;                // that share the leases
  uint64_t eval_prompts = 0;         // first rows of the held-out table; 0: all
  OnFailure unscored = OnFailure::kDropGroup;
  PlannerOptions planner;            // samplers of prompts and of earlier groups
  uint32_t max_requeues = 3;
  uint32_t refill_rounds = 0;        // further prompts in place of groups of equal reward; 0: off
  std::function<int64_t()> now_ms;   // monotonic; empty: steady_clock. A fake one in tests
};

class ReplayTable : public PromptSource, public TrajectorySink, public BatchSource {
 public:
  // REQUIRES: the store holds dataset "train" (and "eval" before Evaluate is called).
  // Throws kInvalidArgument for options that contradict each other.
  ReplayTable(Store* store, TableOptions options);
  ~ReplayTable() override;

  // PromptSource; `Lease` hands out to the holder "local".
  std::vector<PromptLease> Lease(int max_groups, Deadline deadline) override;
  void Release(std::span<const PromptLease> leases) override;
  void Renew() override { RenewActor("local"); }
  bool Finished() override;  // Finish() was called and no Next or Evaluate waits
  std::vector<PromptLease> LeaseTo(const std::string& actor, int max_groups, Deadline deadline);
  // An actor that died or started anew: what it held is free at once. Returns how many leases that were.
  int ReleaseActor(const std::string& actor);
  // The time of all that it holds begins anew. Returns how many leases that are.
  int RenewActor(const std::string& actor);

  // TrajectorySink.
  InsertResult Insert(const TrajectoryGroup& group) override;
  // Several with one sync of the log; results in order.
  std::vector<InsertResult> InsertMany(std::span<const TrajectoryGroup> groups);

  // BatchSource. A dropped group is returned with answers of which none has a score (without any where an older store held it).
  // Replayed groups follow behind the step's own.
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override;
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples, Deadline deadline) override;
  void Finish() override;
  // The same without waiting, for a server that keeps the question open itself: nullopt while groups are missing or, once it is
  // `late`, kDeadline saying which. The groups are as the store holds them, their sums checked: DecodeBatch of replay/record.h
  // makes of them what Next and Evaluate return.
  std::optional<std::string> TryNext(int64_t step, bool late = false);
  // The questions without their answers: whether all is there that TryNext and TryEvaluate would return.
  bool Ready(int64_t step, bool late = false);
  bool EvaluationReady(int64_t version, int num_samples, bool late = false);
  std::optional<std::string> TryEvaluate(int64_t version, int num_samples, bool late = false);

  // What the learner publishes, before any actor can have it. Again with the same: nothing happens.
  void Announce(const PolicyVersion& policy);

  // What a checkpoint's manifest holds: everything the learner has consumed is below `next_step`.
  struct Cursor {
    int64_t next_step = 0;    // the step to ask for after a resume
    uint64_t sequence = 0;    // inserts the store had made
  };
  // As one line for a checkpoint, and back; kCorruption for another line.
  static std::string CursorText(const Cursor& cursor);
  static Cursor ParseCursor(const std::string& text);
  // The cursor after step `consumed_steps - 1` was consumed.
  Cursor CursorAt(int64_t consumed_steps) const;
  // On resume: a store that holds fewer inserts than the manifest says has lost data; throws kCorruption.
  void CheckCursor(const Cursor& cursor) const;
  // CheckCursor, and what is said of resuming above. Returns how many leases will be answered afresh for want of scores.
  int64_t Resume(const Cursor& cursor);
  // The same for whoever inserts: `sequence` is what Acknowledged() was after an insert of theirs; throws kCorruption.
  void CheckAcknowledged(uint64_t sequence) const;
  uint64_t Acknowledged() const { return store_->Sequence(); }
  // Forgets training groups and plans of steps < `step` and evaluations of versions before it. Pass only the cursor of the
  // oldest verified manifest kept, less what later draws need (StepPlanner::StepsToKeep); throws kInvalidArgument where a
  // lease below it is not complete.
  void Trim(int64_t step);

  // Store counters and the table's own: refused/<reason>, dropped/<reason>, reopened/<reason>, requeued, expired, released, leased,
  // unscored_trajectories, aborted_trajectories (of these, never generated), waiting, held, queue (finished groups of steps that
  // nobody has asked for yet).
  std::map<std::string, int64_t> Counters() const;
  // One line for a progress display or a stall report, e.g. "step 17: 29 of 32 groups; missing 547 at 'actor-0' for 61 s".
  std::string Describe() const;

 private:
  int64_t Now() const;
  int64_t StepOf(uint64_t lease_id) const;
  // Which of its lease's prompts it is: the first, or that of a refill.
  uint32_t RoundOf(uint32_t requeues) const { return options_.refill_rounds > 0 ? requeues : 0; }
  uint64_t TrainLimit() const PLUMB_REQUIRES(mu_);
  PromptLease MakeLease(Purpose purpose, const LeaseBook::Held& held) const;
  bool OtherWeights(const PolicyVersion& policy) const PLUMB_REQUIRES(mu_);
  // Those of [begin, end) that are answered.
  std::vector<uint64_t> Answered(Purpose purpose, uint64_t begin, uint64_t end) const
      PLUMB_REQUIRES(mu_);
  void Reopen(Purpose purpose, const std::vector<uint64_t>& ids, const char* reason)
      PLUMB_REQUIRES(mu_);
  void ReopenOtherWeights(int64_t step) PLUMB_REQUIRES(mu_);
  void ReopenEvaluation(uint64_t begin, uint64_t end) PLUMB_REQUIRES(mu_);
  // The name of its counter.
  std::optional<std::string> RefusalReason(const TrajectoryGroup& group) const PLUMB_REQUIRES(mu_);
  // The groups that a question is about.
  struct Range {
    Purpose purpose = Purpose::kTrain;
    uint64_t begin = 0;
    uint64_t count = 0;
    std::string what;  // "step 17"
    int64_t step = -1; // -1: an evaluation
  };
  std::string Missing(const Range& range) const PLUMB_REQUIRES(mu_);
  Range AskStep(int64_t step) PLUMB_REQUIRES(mu_);
  Range AskEvaluation(int64_t version, int32_t num_samples) PLUMB_REQUIRES(mu_);
  bool IsComplete(const Range& range) const PLUMB_REQUIRES(mu_);
  void Await(const Range& range, Deadline deadline, MutexLock& lock) PLUMB_REQUIRES(mu_);
  void CheckComplete(const Range& range) const PLUMB_REQUIRES(mu_);  // throws what is missing
  // The groups that answer a question, with those that a train step is given of earlier ones; all three without mu_. `read` is
  // given each group's purpose and lease, and says whether it is there.
  void ReadEach(const Range& range, const std::function<bool(Purpose, uint64_t)>& read) const;
  std::vector<TrajectoryGroup> Decoded(const Range& range) const;
  std::string Sealed(const Range& range) const;
  LeaseBook& Book(Purpose purpose) PLUMB_REQUIRES(mu_) {
    return purpose == Purpose::kTrain ? train_ : eval_;
  }
  const LeaseBook& Book(Purpose purpose) const PLUMB_REQUIRES(mu_) {
    return purpose == Purpose::kTrain ? train_ : eval_;
  }

  // Constant after construction.
  Store* const store_;
  const TableOptions options_;
  std::unique_ptr<StepPlanner> planner_;
  LogEvery drop_log_{std::chrono::seconds(5)};

  mutable Mutex mu_;
  CondVar changed_;
  LeaseBook train_ PLUMB_GUARDED_BY(mu_);
  LeaseBook eval_ PLUMB_GUARDED_BY(mu_);
  // (version, samples) -> prompts
  std::map<std::pair<int64_t, int32_t>, uint64_t> evaluations_ PLUMB_GUARDED_BY(mu_);
  // In this life of the table
  std::set<std::pair<int64_t, int32_t>> opened_evaluations_ PLUMB_GUARDED_BY(mu_);
  int64_t asked_step_ PLUMB_GUARDED_BY(mu_) = -1;
  // Version -> digest, of this life of the learner
  std::map<int64_t, Digest> announced_ PLUMB_GUARDED_BY(mu_);
  // Training leases >= asked_step_'s whose group's digest was compared when it came
  std::set<uint64_t> compared_ PLUMB_GUARDED_BY(mu_);
  int waiting_ PLUMB_GUARDED_BY(mu_) = 0;  // calls inside Next or Evaluate
  bool finish_ PLUMB_GUARDED_BY(mu_) = false;
};

}  // namespace plumb::replay
