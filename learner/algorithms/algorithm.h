// What the learner's loop drives: one batch of scored groups in, an updated policy and metrics out.
//
// Purpose: the loop knows no algorithm. An algorithm is one file pair, an option struct and a row
// in MakeAlgorithm; what it keeps besides the policy (a critic with its optimizer, a controller,
// running moments) goes through Models() and StateJson() into every checkpoint, so that a resumed
// run goes on bit for bit.
// Thread safety: one thread. Ownership: an algorithm borrows the policy, its optimizer and the
// reference, and owns the rest.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"
#include "learner/distill/distiller.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/reference_policy.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

class Algorithm {
 public:
  virtual ~Algorithm() = default;

  // One batch: all its updates. `step` is 0-based and numbers the batch; equal state and equal
  // arguments give equal bits. Returns metrics under the names of docs/metrics.md,
  // "perf/train_tokens" among them.
  virtual std::map<std::string, double> Train(std::span<const TrajectoryGroup> groups,
                                              double learning_rate, int64_t step) = 0;

  // Models that are trained besides the policy, each saved with its optimizer. Names and order
  // never change during a run.
  virtual std::vector<NamedModel> Models() { return {}; }
  // Everything else that has to survive a restart, as one JSON object; RestoreState takes what
  // StateJson gave.
  virtual std::string StateJson() const { return "{}"; }
  virtual void RestoreState(const std::string& /*json*/) {}
};

// What an algorithm is made of; all borrowed. `reference` is nullptr when the recipe needs none
// (see NeedsReference).
struct AlgorithmContext {
  const configs::Config& config;
  TrainStep& train;
  policy_model::Weights& weights;
  Optimizer& optimizer;
  ReferencePolicy* reference = nullptr;
  Distiller* distiller = nullptr;  // where distill.teachers names any
};

// By algorithm.name. Throws kInvalidArgument for one that has no rollouts.
std::unique_ptr<Algorithm> MakeAlgorithm(const AlgorithmContext& context);

// What MakeAlgorithm would refuse and can be known at once: before a warm start, not after it.
void CheckAlgorithm(const configs::Config& config, const policy_model::ModelShape& policy);

// A frozen copy of the first policy has to be kept.
bool NeedsReference(const configs::Config& config);

}  // namespace plumb::learner
