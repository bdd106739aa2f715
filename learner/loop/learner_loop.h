// The learner role: warm start, publish, then batch -> update -> publish until the run's steps are
// done.
//
// Purpose: the training story of a run in one place; everything it touches is a port or an object
// handed in, so the same loop runs beside the other roles or in a process of its own. What a
// checkpoint, a stop and an error do: learner/loop/step_loop.h. A warm start that was stopped,
// killed or ended by an error goes on from its newest checkpoint (every run.checkpoint_every
// updates, and where it was stopped), else anew.
// Ranks that compute the model together train a share of it each; answers are generated from the
// whole, which every rank has besides and brings up to date before it is published.
// Thread safety: one thread calls Run. Ownership: borrows everything.
// Errors: those of the ports; a wait longer than run.stall_seconds throws kDeadline naming what it
// waited for; steps or evaluations without an answer that could be scored:
// learner/algorithms/scoreless.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "configs/config.h"
#include "learner/algorithms/algorithm.h"
#include "learner/algorithms/scoreless.h"
#include "learner/loop/step_loop.h"
#include "learner/ranks/rank_grid.h"
#include "learner/update/expert_balance.h"
#include "learner/update/shares/experts/expert_share.h"
#include "learner/update/shares/model_share.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

class LearnerLoop : public StepLoop {
 public:
  LearnerLoop(const configs::Config& config, policy_model::Weights& weights, BatchSource& batches,
              WeightSink& sink, Checkpoints& checkpoints, std::span<const Demonstration> sft_train,
              std::span<const Demonstration> sft_heldout, const LearnerHooks& hooks,
              Ranks* ranks = nullptr, int ranks_here = 1);

 private:
  bool Prepare(bool restored, bool resume) override;
  bool SavesStart() const override { return config_.sft.steps > 0; }
  void Publish(int64_t version) override;
  std::optional<Step> Train(int64_t step, double learning_rate) override;
  std::optional<EvalResult> Evaluate(int64_t version) override;
  void Finish() override { batches_.Finish(); }
  std::vector<NamedModel> Models() override { return algorithm_->Models(); }
  std::string AlgorithmJson() override { return algorithm_->StateJson(); }
  void RestoreAlgorithm(const std::string& json) override { algorithm_->RestoreState(json); }

  void CheckWarmStart() const;
  bool WarmStart(bool resume);
  void TakeUpWarmStart();
  void SaveWarmStart(bool beside);
  void KeepWarmStart();
  void MakeAlgorithmAndReference(bool restored);
  void KeepReference(bool restored);
  // What is trained here: all of the weights, or this rank's share of them.
  policy_model::Weights& trained() { return share_ ? share_->weights() : weights_; }
  Deadline StallDeadline() const;
  // Behind so many steps, where algorithm.reference_sync_every says so.
  void RenewReference(int64_t steps);
  void CountRewards(std::span<const TrajectoryGroup> groups);
  void CheckAnswers(const std::function<void()>& check);  // what it throws for spoilt weights
                                                          // disowns the steps that led to them

  BatchSource& batches_;
  WeightSink& sink_;
  const std::span<const Demonstration> sft_train_, sft_heldout_;
  RankGrid grid_;
  ExpertRanks experts_;
  std::unique_ptr<ModelShare> share_;  // where ranks compute the model together
  policy_model::Transformer transformer_;
  TrainStep train_;
  Optimizer own_optimizer_;
  ExpertBalance balance_;
  std::unique_ptr<ReferencePolicy> reference_;
  std::unique_ptr<Distiller> distiller_;
  std::unique_ptr<Algorithm> algorithm_;
  ScorelessSteps scoreless_;
  // The warm start: what was done at the last update that was applied, and what the newest
  // checkpoint of it holds.
  SftResult sft_;
  Optimizer::Counters sft_counters_;
  int64_t sft_saved_ = 0;
};

// Accuracy and mean reward of evaluation groups.
EvalResult Summarise(std::span<const TrajectoryGroup> groups, const std::string& success_part,
                     int64_t version);

}  // namespace plumb::learner
