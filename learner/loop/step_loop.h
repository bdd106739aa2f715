// The steps of a run, whatever it trains on: take up a checkpoint, step until the run's steps are
// done, evaluate, save, end.
//
// Purpose: one skeleton for training on fresh answers (learner_loop.h) and on stored rows
// (offline_loop.h); they say what a step and an evaluation are. What the skeleton keeps:
//   a step's line is written before its checkpoint, so that a run killed in between writes it
//   again and never lacks it;
//   a checkpoint waits for a step that trained: the newest one is the last good one; the start is
//   none of its own, unless it was trained (SavesStart): a run that ended before its first
//   checkpoint begins anew;
//   nothing that is not finite is saved; what stands is not saved again;
//   a checkpoint between two steps is copied and written beside the steps that follow
//   (checkpoint.background): it counts as saved once it is whole, which the next step, the next
//   checkpoint or the end finds out, and so does a write that failed. Those of the end, of a stop
//   and of an error are waited for;
//   of several ranks each does the same steps on the same weights, which they compare after every
//   step; rank 0 writes and shows;
//   an error, whichever, leaves a checkpoint of the good steps before it ends the run, unless it
//   struck between two updates of one step. That checkpoint counts the steps up to the last one
//   that trained: those behind it are done again.
// Thread safety: one thread calls Run, once. Ownership: borrows everything it is made of.
// Errors: those of the parts; kConflict for a checkpoint of another seed; kCorruption for a
// checkpoint's state of no known form.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/record/ports.h"
#include "configs/batch_ramp.h"
#include "configs/config.h"
#include "learner/loop/best_model.h"
#include "learner/loop/run_state.h"
#include "learner/offline/sft.h"
#include "learner/update/checkpoint.h"
#include "learner/update/checkpoint_size.h"
#include "learner/update/checkpoint_writer.h"
#include "learner/update/optimizer.h"

namespace plumb::learner {

// What the loop tells its surroundings; every member may be empty.
struct LearnerHooks {
  std::function<void(const std::string&)> phase;  // "warm start", "training", ...
  std::function<void(const SftStep&)> sft_step;
  std::function<void(int64_t step, std::map<std::string, double>&)> step;     // may add metrics
  std::function<void(int64_t step, std::span<const TrajectoryGroup>)> batch;  // for samples
  std::function<void(const EvalResult&, std::span<const TrajectoryGroup>)> evaluated;
  std::function<void(int64_t oldest_step)> checkpointed;  // the store may trim below it
  // What the store has seen so far, in words of its own: kept with a checkpoint, and given back by
  // `resumed` before the first step, which throws where the store is not the one that the
  // checkpoint was made over. `anew`: the run was begun before and has no checkpoint to go on from.
  std::function<std::string()> store_state;
  std::function<void(int64_t step, const std::string& store_state)> resumed;
  std::function<void()> anew;
  // What the run will save, before its first step; each save, before and after it; what an
  // evaluation took, also that of an earlier life.
  std::function<void(const SavePlan&)> plan;
  std::function<void(const std::string& what, int64_t bytes)> saving;
  // `waited`: of its seconds, those that training waited for; more where it waited for the one
  // before, too.
  std::function<void(int64_t bytes, double seconds, double waited)> saved;
  std::function<void(double seconds)> evaluation_took;
  // Asked between steps, and when a wait for a batch or an evaluation was given up.
  std::function<bool()> stop;
};

struct LearnerResult {
  int64_t first_step = 0;  // > 0 after a resume
  int64_t steps = 0;       // train steps done in total
  bool stopped_early = false;
  bool saved = false;  // there is a checkpoint of its last step
  std::optional<EvalResult> before, after;
  std::optional<EvalResult> best;  // eval.keep_best: of the model in RUN/best
  int64_t tokens = 0;              // forwarded in training, prompt included
  // Of all optimizers, the warm start's included: applied, and skipped for numbers that are not
  // finite.
  int64_t updates = 0, skipped_updates = 0;
  // The last ones, of the optimizer that skipped most: for that, not for a scale of the loss that
  // was too large for float16.
  int64_t skipped_at_end = 0;
  RewardTally rewards;  // of this and earlier parts of the run, as wall_s
  double wall_s = 0;
  std::optional<SftResult> sft;
  PolicyVersion policy;
  // optimizer_sha256: of the moments; of a run that was taken up without any and had no step left,
  // what its checkpoint says of them, empty where that says nothing (before December 2026)
  std::string weights_sha256, optimizer_sha256;
  // Of each other trained model: of its weights and the digest of its moments.
  std::map<std::string, std::string> model_sha256;
};

class StepLoop {
 public:
  virtual ~StepLoop() = default;

  // `resume`: go on from the newest verified checkpoint when there is one.
  LearnerResult Run(bool resume);

 protected:
  using SteadyClock = std::chrono::steady_clock;
  struct Step {
    // "perf/train_tokens", "perf/shared_tokens" and "time/train" among them.
    std::map<std::string, double> metrics = {};
    bool taught = true;     // there was something to learn from
    double per_second = 0;  // what perf/tokens_per_s counts: tokens of this step
  };

  // A checkpoint between two steps is written beside those that follow.
  bool WritesBeside() const;

  // `batches`: in what CheckpointState::store_cursor counts.
  // `ranks`: that run the same loop; nullptr: there is one.
  StepLoop(const configs::Config& config, policy_model::Weights& weights, Optimizer& optimizer,
           Checkpoints& checkpoints, const LearnerHooks& hooks, const configs::BatchRamp& batches,
           Ranks* ranks = nullptr);

  // Makes what trains. A new run (`restored` false) may train the weights of step 0 first, and go
  // on with that where an earlier life stood (`resume`); false: it was stopped in the middle. Of a
  // restored one weights, optimizer and state are back.
  virtual bool Prepare(bool restored, bool resume) = 0;
  // The weights of step 0 are not found again by whoever begins anew: they were trained.
  virtual bool SavesStart() const { return false; }
  // The weights of version `step` are those to go on with.
  virtual void Publish(int64_t /*version*/) {}
  // One step with all its updates, its batch waited for; nullopt: the run is to stop and the wait
  // was given up.
  virtual std::optional<Step> Train(int64_t step, double learning_rate) = 0;
  // nullopt: nothing is held out.
  virtual std::optional<EvalResult> Evaluate(int64_t version) = 0;
  // No step will follow.
  virtual void Finish() {}
  // Models besides the policy, and what else is kept (learner/algorithms/algorithm.h). Not asked
  // before Prepare has come to its end.
  virtual std::vector<NamedModel> Models() = 0;
  virtual std::string AlgorithmJson() = 0;
  virtual void RestoreAlgorithm(const std::string& json) = 0;

  // Of several ranks, which all ask: one of them is to stop.
  bool Stop() const {
    const bool own = hooks_.stop && hooks_.stop();
    return ranks_ ? ranks_->Any(own) : own;
  }
  // Of several ranks, the one that writes.
  bool first() const { return !ranks_ || ranks_->first(); }
  // A wait that failed with `error` failed because the run is to stop.
  bool GivenUp(const Error& error) const {
    return (error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kDeadline) &&
           Stop();
  }
  void Phase(const std::string& name) const {
    if (hooks_.phase) hooks_.phase(name);
  }
  // The weights turned out to answer nothing: the steps since the last checkpoint led to them, and
  // an error does not save them.
  void DisownSteps() { good_.reset(); }
  double Elapsed() const;
  // Throws kConflict for a checkpoint of another seed.
  void CheckSeed(const Checkpoints::Found& found) const;
  // Loads policy and optimizer from it, and takes over what was spent so far.
  void LoadFrom(const Checkpoints::Found& found);
  // result_.policy: the weights as they are, under this number. Throws kNonFinite where they are
  // not finite.
  void Identify(int64_t version);
  // Writes what `state` says of the models as they are; `after` follows on this thread, once that
  // is whole. `beside`: copied, and written while the training goes on. Waits for the one before,
  // and throws what that failed with.
  void Write(Checkpoints::Kind kind, const CheckpointState& state,
             std::span<const NamedModel> models, const std::string& what, bool beside,
             std::function<void()> after);
  // What is to be done once a checkpoint is whole is done; `wait`: for the one in flight. Throws
  // what it failed with.
  void Settle(bool wait);
  // The sets of the weights last identified; those that changed since the last call in host memory,
  // until the next call or update, when `bytes`.
  std::vector<WeightSet> SetsToPublish(const WeightSink& sink);

  const configs::Config& config_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
  Checkpoints& checkpoints_;
  const LearnerHooks hooks_;
  const configs::BatchRamp sizes_;
  Ranks* const ranks_;
  LearnerResult result_;
  // As the checkpoint says; those written before it was kept say false.
  bool warm_start_ended_ = true;

 private:
  // Everything of a checkpoint but the tensors, at the end of a step.
  struct Snapshot {
    int64_t step = 0;
    PolicyVersion policy = {};                       // without digest: not identified yet
    std::vector<Optimizer::Counters> counters = {};  // of the policy, then of Models()
    std::string algorithm_json = {};
    int64_t tokens = 0;
    RewardTally rewards = {};
  };
  std::optional<Checkpoints::Found> TakeUp();
  void Steps();
  void OneStep(int64_t step, double learning_rate);
  void Count(const Optimizer& of) {
    result_.updates += of.updates();
    result_.skipped_updates += of.skipped();
    result_.skipped_at_end = std::max(result_.skipped_at_end, of.counters().skipped_in_a_row);
  }
  void End();
  Snapshot Capture(int64_t step);
  bool Untouched(const Snapshot& snapshot);  // by any update since
  enum class Saving { kBeside, kNow, kEnding };
  void Save(const Snapshot& snapshot, Saving how);
  void BeginAnew();
  void TellSavePlan();
  bool KeepsMoments(int64_t step) const;
  bool KeepsOptimizer(int64_t step) const;  // of a checkpoint that is due there
  void SaveGoodSteps();
  // The ranks hold the same weights: throws RankLost naming those that do not.
  void CheckRanks(const std::string& when);
  std::optional<EvalResult> EvaluateOrStop(int64_t version);
  std::vector<Optimizer*> Optimizers();
  bool LastUpdateApplied();  // of every model that is trained
  bool AllScoreless() const;
  void SayEqualRewards() const;

  int64_t step_ = 0;                   // done
  std::optional<int64_t> last_saved_;  // the step of the newest checkpoint
  bool saved_optimizer_ = true;        // it holds the optimizer
  bool due_ = false;                   // a checkpoint
  bool given_up_ = false;              // stopped in a wait: whom it waited for may be gone
  std::optional<Snapshot> good_;       // of the last step that trained
  std::optional<BestModel> best_;      // of the rank that writes, where it is kept
  std::string store_;                  // as last told
  std::vector<std::pair<std::string, Digest>> digests_;  // of the sets of result_.policy
  std::vector<Digest> published_;                        // of the sets last handed out
  std::vector<std::vector<std::byte>> host_;             // copies of a device's sets
  double earlier_wall_s_ = 0;
  double product_speed_ = 0;  // operations per second; measured before the first step
  // Of checkpoints since the last line: what they took that are whole, and what training waited.
  double checkpoint_s_ = 0, checkpoint_wait_s_ = 0;
  CheckpointWriter writer_;
  struct InFlight {
    int64_t bytes = 0;
    double waited = 0;
    std::function<void()> after;
  };
  std::optional<InFlight> in_flight_;
  bool ending_ = false;  // nobody may be there to tell
  SteadyClock::time_point started_;
};

}  // namespace plumb::learner
