// The learner role: warm start, publish, then batch -> update -> publish until the run's steps are done.
//
// Purpose: the training story of a run in one place; everything it touches is a port or an object handed in, so the same
// loop runs beside the other roles or in a process of its own.
// Thread safety: one thread calls Run. Ownership: borrows everything.
// Errors: those of the ports; a wait longer than run.stall_seconds throws kDeadline naming what it waited for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/ports.h"
#include "configs/config.h"
#include "learner/algorithm.h"
#include "learner/checkpoint.h"
#include "learner/optimizer.h"
#include "learner/sft.h"
#include "learner/train_step.h"

namespace plumb::learner {

struct EvalResult {
  int64_t version = 0;
  double accuracy = 0;     // answers whose success part is >= 0.5, over all answers
  double reward = 0;       // mean over scored answers
  double reward_se = 0;    // its standard error; 0 for fewer than two
  int64_t answers = 0;
  int64_t unscored = 0;
  std::optional<double> loss = {};  // held-out loss, where there is one (offline runs)
};

// What the loop tells its surroundings; every member may be empty.
struct LearnerHooks {
  std::function<void(const std::string&)> phase;                                      // "warm start", "training", ...
  std::function<void(const SftStep&)> sft_step;
  std::function<void(int64_t step, std::map<std::string, double>&)> step;             // may add metrics
  std::function<void(int64_t step, std::span<const TrajectoryGroup>)> batch;          // for samples
  std::function<void(const EvalResult&, std::span<const TrajectoryGroup>)> evaluated;
  std::function<void(int64_t oldest_step)> checkpointed;                              // the store may trim below it
  // What the store has seen so far, in words of its own: kept with a checkpoint, and given back by `resumed` before the
  // first step, which throws where the store is not the one that the checkpoint was made over.
  std::function<std::string()> store_state;
  std::function<void(int64_t step, const std::string& store_state)> resumed;
  std::function<bool()> stop;                                                         // asked between steps
};

struct LearnerResult {
  int64_t first_step = 0;      // > 0 after a resume
  int64_t steps = 0;           // train steps done in total
  bool stopped_early = false;
  std::optional<EvalResult> before, after;
  int64_t tokens = 0;          // forwarded in training, prompt included
  int64_t skipped_updates = 0;
  double wall_s = 0;           // of this and earlier parts of the run
  std::optional<SftResult> sft;
  PolicyVersion policy;
  std::string weights_sha256, optimizer_sha256;
  std::map<std::string, std::string> model_sha256;  // of each other trained model: weights, then both moments
};

class LearnerLoop {
 public:
  LearnerLoop(const configs::Config& config, policy_model::Weights& weights, BatchSource& batches, WeightSink& sink,
              Checkpoints& checkpoints, std::span<const Demonstration> sft_train,
              std::span<const Demonstration> sft_heldout, LearnerHooks hooks);

  // `resume`: go on from the newest verified checkpoint when there is one.
  LearnerResult Run(bool resume);

 private:
  void WarmStart();
  void Publish(int64_t version);
  void SaveCheckpoint(int64_t next_step);
  void Evaluate(int64_t version, std::optional<EvalResult>& into);
  Deadline StallDeadline() const;
  std::string StateJson() const;
  void RestoreState(const std::string& json);
  double Elapsed() const;
  bool LastUpdateApplied() const;  // of every model that is trained
  // Of the machine's speed in products: what the gradients of `tokens` took, all trained models counted.
  double ShareOfSpeed(double tokens, double seconds) const;
  void Phase(const std::string& name) const {
    if (hooks_.phase) hooks_.phase(name);
  }

  const configs::Config& config_;
  policy_model::Weights& weights_;
  BatchSource& batches_;
  WeightSink& sink_;
  Checkpoints& checkpoints_;
  std::span<const Demonstration> sft_train_, sft_heldout_;
  LearnerHooks hooks_;

  policy_model::Transformer transformer_;
  TrainStep train_;
  Optimizer optimizer_;
  std::unique_ptr<ReferencePolicy> reference_;
  std::unique_ptr<Algorithm> algorithm_;
  LearnerResult result_;
  std::vector<std::byte> published_;  // host copy of a device's weights
  double earlier_wall_s_ = 0;
  double product_speed_ = 0;          // operations a second; measured before the first step
  std::chrono::steady_clock::time_point started_;
};

// Accuracy and mean reward of evaluation groups.
EvalResult Summarise(std::span<const TrajectoryGroup> groups, const std::string& success_part, int64_t version);

}  // namespace plumb::learner
