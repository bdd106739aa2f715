// The model of a run's best evaluation (eval.keep_best), in a folder of its own.
//
//   RUN/best/   a model folder, as that of a checkpoint, and evaluation.json, written last:
//               the evaluation whose weights these are; its version is the step
//
// Best: the highest accuracy (answers solved, pairs ranked right), of demonstrations the lowest
// loss; of two that are equal the higher mean reward, and then the earlier one. What is not finite
// or was not measured is never the best.
// Goals: whatever ends the process, a whole model is there: the new one is complete beside the old
// one before that goes, and one that was left so is put in its place when the run is taken up.
// Thread safety: one thread. Ownership: borrows the checkpoints. Errors: those of the disk;
// kCorruption for an evaluation.json that cannot be read.
#pragma once

#include <optional>
#include <string>

#include "learner/loop/run_state.h"
#include "learner/update/checkpoint.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

// Beside the folder of the checkpoints.
std::string BestModelFolder(const std::string& checkpoints);

class BestModel {
 public:
  // `folder` need not exist: it is made with the first model.
  BestModel(std::string folder, const Checkpoints& checkpoints);
  // Whether `result` is better than what is kept.
  bool Beaten(const EvalResult& result) const;
  // In place of what is kept, if that is Beaten.
  void Offer(const EvalResult& result, const policy_model::Weights& weights);
  const std::optional<EvalResult>& kept() const { return kept_; }

 private:
  const std::string folder_;
  const Checkpoints& checkpoints_;
  std::optional<EvalResult> kept_;
};

}  // namespace plumb::learner
