// The on-policy table of a run: prompts out, groups in, batches to the learner.
//
// Purpose: a StorePort over one Store.
//   The training leases of step s, numbered behind those of the steps before
//   (configs/batch_ramp.h), are handed out once the learner has asked for step
//   >= s - max_staleness (0 under sync), so generation runs ahead by at most that many steps.
//   Weights: before step s the learner has published version s + version_base.
//   Under sync step s takes the leases that bear its number, in their order, and each names exactly
//   the version of s. Under async a lease names no version, and step s takes the first
//   the groups of its number that came and that no step before it took
//   (replay/table/ready_queue.h), whichever leases they answer: a straggler holds up no step but
//   the last. The choice is written to the store before anybody acts on it: asked again, and after
//   a resume, a step takes the same. A group whose oldest token was sampled by a version below s +
//   version_base - max_staleness is stale for step s: one that comes then is refused ("stale"), one
//   that lay ready is forgotten
//   ("reopened/stale"), and the lease goes out again. So every lease trains one step, once.
//   Evaluation leases go out before training leases.
//   An actor is given its share of what is not answered yet (1 / actors), so that several work on
//   one step. Which prompt a lease carries, and which groups of earlier steps come with a step's
//   own: replay/table/step_planner.h.
// What happens to a training group that is not wholly scored: replay/store/unscored.h decides
// (evaluation groups are always kept). A
//   dropped group completes its step like any other; the learner gets it with answers of which none
//   has a score. All counted.
// Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): with refill_rounds > 0 a training group
// whose answers all have the same
//   reward is counted as dropped/equal_rewards and not stored; its lease goes out again with
//   another prompt, at most refill_rounds times, then the group is kept. Which prompt is a function
//   of lease and round: a restart draws the same.
// Weights: the learner announces each version with its digest before it asks for the step that
// needs it. A group of that version
//   with another digest, or of a version that is not out yet, was sampled by weights that a learner
//   had before it went back to a checkpoint: it is refused ("other_weights"), or forgotten where it
//   is stored, and its lease answered again. Equal bits keep everything. Without announcements
//   nothing is compared.
// Resume: steps from the cursor on of which every answered group was dropped are answered afresh,
// so that a run whose rewards were
//   away goes on once they are mended; likewise an evaluation without one scored answer.
// Leases: one lasts lease_timeout_ms from when it was handed out or its holder last said Renew.
// Reports: what roles say of themselves (Report) is summed into Counters; a role's higher epoch
// begins a new life of it, and what
//   its earlier lives counted stays.
// Thread safety: all methods may be called concurrently. Lock order: the table's mutex, then the
// store's. Ownership: borrows the store, which must outlive it; the only writer of groups to it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/record/ports.h"
#include "configs/batch_ramp.h"
#include "replay/store/store.h"
#include "replay/store/unscored.h"
#include "replay/table/leases.h"
#include "replay/table/ready_queue.h"
#include "replay/table/step_planner.h"
#include "replay/table/store_port.h"

namespace plumb::replay {

struct TableOptions {
  uint64_t seed = 1;
  bool shuffle = true;
  int64_t steps = 0;  // train steps of the run; leases end there
  int64_t prompts_per_step = 32;
  int64_t ramp_steps = 0;  // configs/batch_ramp.h
  double ramp_start = 1;
  int32_t samples_per_prompt = 8;
  bool branches = false;  // a sample to train on may have several trajectories
  bool sync = true;
  int64_t max_staleness = 0;  // versions; must be 0 under sync
  int64_t version_base = 0;
  int64_t lease_timeout_ms = 600'000;
  int64_t actors = 1;         // that share the leases
  uint64_t eval_prompts = 0;  // first rows of the held-out table; 0: all
  OnFailure unscored = OnFailure::kDropGroup;
  PlannerOptions planner;  // samplers of prompts and of earlier groups
  uint32_t max_requeues = 3;
  uint32_t refill_rounds = 0;       // further prompts in place of groups of equal reward; 0: off
  std::function<int64_t()> now_ms;  // monotonic; empty: steady_clock. A fake one in tests
};

class ReplayTable : public StorePort {
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
  // An actor that died or started anew: what it held is free at once. Returns how many leases that
  // were.
  int ReleaseActor(const std::string& actor);
  // The time of all that it holds begins anew. Returns how many leases that are.
  int RenewActor(const std::string& actor);
  // From now on so many share the leases, instead of TableOptions::actors; at least 1.
  void ShareAmong(int64_t actors);

  std::vector<InsertResult> InsertMany(std::span<const ScoredBody> groups) override;

  // BatchSource. A dropped group is returned with answers of which none has a score (without any
  // where an older store held it). Replayed groups follow behind the step's own.
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override;
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples,
                                        Deadline deadline) override;
  void Finish() override;
  // The same without waiting, for a server that keeps the question open itself: nullopt while
  // groups are missing or, once it is `late`, kDeadline saying which. The groups are as the store
  // holds them, their sums checked: DecodeBatch of replay/store/record.h makes of them what Next
  // and Evaluate return.
  std::optional<std::string> TryNext(int64_t step, bool late = false);
  // The questions without their answers: whether all is there that TryNext and TryEvaluate would
  // return.
  bool Ready(int64_t step, bool late = false);
  bool EvaluationReady(int64_t version, int num_samples, bool late = false);
  std::optional<std::string> TryEvaluate(int64_t version, int num_samples, bool late = false);

  std::vector<Prompt> Prompts(std::span<const PromptRef> refs) override;
  // The same for somebody in another process (Store::PromptValue).
  std::string PromptValue(const PromptRef& ref) const { return store_->PromptValue(ref); }

  void Announce(const PolicyVersion& policy) override;

  using Cursor = StoreCursor;
  // As one line for a checkpoint, and back; kCorruption for another line.
  static std::string CursorText(const Cursor& cursor);
  static Cursor ParseCursor(const std::string& text);
  Cursor CursorAt(int64_t consumed_steps) override;
  // On resume: a store that holds fewer inserts than the manifest says has lost data; throws
  // kCorruption.
  void CheckCursor(const Cursor& cursor) const;
  // CheckCursor, and what is said of resuming above.
  int64_t Resume(const Cursor& cursor) override;
  // The same for whoever inserts: `sequence` is what Acknowledged() was after an insert of theirs;
  // throws kCorruption.
  void CheckAcknowledged(uint64_t sequence) const;
  uint64_t Acknowledged() const { return store_->Sequence(); }
  // Forgets training groups and plans of steps < `step` and evaluations of versions before it. Pass
  // only the cursor of the oldest verified manifest kept, less what later draws need
  // (StepPlanner::StepsToKeep); throws kInvalidArgument where a lease below it is not complete.
  // Under async what lies behind a straggler's lease stays until that was trained on as well.
  void Trim(int64_t step) override;

  // Store counters and the table's own: refused/<reason>, dropped/<reason>, reopened/<reason>,
  // requeued, expired, released, leased, unscored_trajectories, aborted_trajectories (of these,
  // never generated), waiting, held, queue (finished groups that no step has taken yet), and what
  // roles have reported.
  std::map<std::string, int64_t> Counters() override;
  void Report(const std::string& role, const std::map<std::string, int64_t>& counters) override {
    Report(role, 0, counters);
  }
  // kInvalidArgument for too many roles. What a life says that is over is not heard.
  void Report(const std::string& role, uint64_t epoch, std::map<std::string, int64_t> counters);
  // One line for a progress display or a stall report, e.g. "step 17: 29 of 32 groups; missing 547
  // at 'actor-0' for 61 s".
  std::string Describe() const;

 private:
  int64_t Now() const;
  int64_t StepOf(uint64_t lease_id) const {
    return batches_.StepOf(static_cast<int64_t>(lease_id));
  }
  uint64_t FirstOf(int64_t step) const { return static_cast<uint64_t>(batches_.Before(step)); }
  // Which of its lease's prompts it is: the first, or that of a refill.
  uint32_t RoundOf(uint32_t requeues) const { return options_.refill_rounds > 0 ? requeues : 0; }
  uint64_t TrainLimit() const PLUMB_REQUIRES(mu_);
  PromptLease MakeLease(Purpose purpose, const LeaseBook::Held& held) const;
  bool OtherWeights(const PolicyVersion& policy) const PLUMB_REQUIRES(mu_);
  // Those of [begin, end) that are answered.
  std::vector<uint64_t> Answered(Purpose purpose, uint64_t begin, uint64_t end) const
      PLUMB_REQUIRES(mu_);
  std::vector<uint64_t> OwnGroups(int64_t step) const;
  // Of its own groups; under async nothing before it has chosen.
  std::vector<uint64_t> AnsweredOf(int64_t step) const PLUMB_REQUIRES(mu_);
  void Reopen(Purpose purpose, const std::vector<uint64_t>& ids, const char* reason)
      PLUMB_REQUIRES(mu_);
  void ReopenOtherWeights(int64_t step) PLUMB_REQUIRES(mu_);
  void ReopenEvaluation(uint64_t begin, uint64_t end) PLUMB_REQUIRES(mu_);
  // The name of its counter.
  std::optional<std::string> RefusalReason(const GroupHead& group) const PLUMB_REQUIRES(mu_);
  // The groups that a question is about.
  struct Range {
    Purpose purpose = Purpose::kTrain;
    uint64_t begin = 0;
    uint64_t count = 0;
    std::string what;   // "step 17"
    int64_t step = -1;  // -1: an evaluation
  };
  std::string Missing(const Range& range) const PLUMB_REQUIRES(mu_);
  Range AskStep(int64_t step) PLUMB_REQUIRES(mu_);
  Range AskEvaluation(int64_t version, int32_t num_samples) PLUMB_REQUIRES(mu_);
  // May choose the step's groups.
  bool IsComplete(const Range& range) PLUMB_REQUIRES(mu_);
  void Await(const Range& range, Deadline deadline, MutexLock& lock) PLUMB_REQUIRES(mu_);
  void CheckComplete(const Range& range) PLUMB_REQUIRES(mu_);  // throws what is missing
  // The groups that answer a question, with those that a train step is given of earlier ones; all
  // three without mu_. `read` is given each group's purpose and lease, and says whether it is
  // there.
  void ReadEach(const Range& range, const std::function<bool(Purpose, uint64_t)>& read) const;
  std::vector<TrajectoryGroup> Decoded(const Range& range) const;
  std::string Sealed(const Range& range) const;
  // Schedule async (table_ready.cc).
  bool TakesReady(const Range& range) const { return !options_.sync && range.step >= 0; }
  // The first that may take what comes now.
  int64_t OpenStep() const PLUMB_REQUIRES(mu_) { return std::max(asked_step_, undecided_step_); }
  bool Choose(int64_t step) PLUMB_REQUIRES(mu_);  // false: too few are ready
  void NoteReady(const GroupHead& group) PLUMB_REQUIRES(mu_);
  void RebuildReady() PLUMB_REQUIRES(mu_);  // from the store
  // Steps of a Plumb that chose nothing.
  void TakeByNumber(int64_t next_step) PLUMB_REQUIRES(mu_);
  // Also those that steps had chosen.
  void ForgetAnswers(const std::vector<uint64_t>& ids) PLUMB_REQUIRES(mu_);
  // All leases below it were taken by steps < `step`.
  uint64_t TakenBelow(int64_t step) const PLUMB_REQUIRES(mu_);
  // No step below it chose a lease from `lease_id` on.
  int64_t PlansBelow(uint64_t lease_id) const PLUMB_REQUIRES(mu_);
  LeaseBook& Book(Purpose purpose) PLUMB_REQUIRES(mu_) {
    return purpose == Purpose::kTrain ? train_ : eval_;
  }
  const LeaseBook& Book(Purpose purpose) const PLUMB_REQUIRES(mu_) {
    return purpose == Purpose::kTrain ? train_ : eval_;
  }

  // Constant after construction.
  Store* const store_;
  const TableOptions options_;
  const configs::BatchRamp batches_;
  std::atomic<int64_t> actors_;
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
  ReadyQueue ready_ PLUMB_GUARDED_BY(mu_);  // schedule async
  // Likewise: the first step that has not chosen its groups
  int64_t undecided_step_ PLUMB_GUARDED_BY(mu_) = 0;
  struct Counted {  // by a role: in this life, and in those before
    uint64_t epoch = 0;
    std::map<std::string, int64_t> now, past;
  };
  std::map<std::string, Counted> reports_ PLUMB_GUARDED_BY(mu_);
  // Version -> digest, of this life of the learner
  std::map<int64_t, Digest> announced_ PLUMB_GUARDED_BY(mu_);
  // Training leases >= asked_step_'s whose group's digest was compared when it came
  std::set<uint64_t> compared_ PLUMB_GUARDED_BY(mu_);
  int waiting_ PLUMB_GUARDED_BY(mu_) = 0;  // calls inside Next or Evaluate
  bool finish_ PLUMB_GUARDED_BY(mu_) = false;
};

}  // namespace plumb::replay
