// What training does for the load of experts besides the objective: tells the model its options,
// moves the balancing biases, and reports the load.
//
// The bias of an expert is no matter of the gradient (Wang et al., "Auxiliary-Loss-Free Load
// Balancing Strategy for Mixture-of-Experts", 2024): after each step it goes up by
// experts.bias_rate where the expert had less than the mean load of its layer, and down where it
// had more. It is a tensor of the model: checkpoints hold it, actors get it.
// Of a model without experts it does nothing.
// Thread safety: one thread. Ownership: borrows everything. Errors: kInvalidArgument for options
// that the model has no use for.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/update/optimizer.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

class ExpertBalance {
 public:
  ExpertBalance(const configs::ExpertsConfig& options, uint64_t seed,
                policy_model::Transformer& transformer, policy_model::Weights& weights,
                Optimizer& optimizer);

  // Before the updates of a step, which is numbered among those of its phase.
  enum class Phase : uint8_t { kTraining, kWarmStart };
  void Begin(Phase phase, int64_t step);
  // After them: biases move if the last update was applied; the load goes into `metrics` under the
  // names of docs/metrics.md.
  void End(std::map<std::string, double>& metrics);

 private:
  // Of all ranks, each of which saw its own micro-batches.
  std::vector<policy_model::LayerLoad> TakeLoad();
  void MoveBiases(std::span<const policy_model::LayerLoad> load);

  const double rate_;
  policy_model::Transformer& transformer_;
  policy_model::Weights& weights_;
  Optimizer& optimizer_;
};

}  // namespace plumb::learner
