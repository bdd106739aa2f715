// The supervised warm start before rollouts: updates of learner/offline/sft_objective.h at a rate
// of its own, until its steps are done or the held-out loss is flat.
//
// Thread safety: one thread. Batches, rates and order follow from (seed, update), so that a warm
// start taken up again where it stood goes on bit for bit.
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/config.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

struct SftStep {
  int64_t step = 0;          // 0-based
  double loss = 0;           // nats per token, before the update
  double heldout_loss = -1;  // after the update; -1: not measured at this step
  double learning_rate = 0;
  double grad_norm = 0;
  int64_t tokens = 0;  // forwarded
};

struct SftResult {
  int64_t steps = 0;
  int64_t tokens = 0;
  double heldout_first = 0, heldout_last = 0;
  // the last held-out loss is no new low: not 2 % below the lowest before it
  bool flat = false;
  bool stopped = false;  // by on_step, before the last update
  // What the patience goes by: the lowest held-out loss, infinite before the first, and how many
  // since were no new low.
  double lowest = std::numeric_limits<double>::infinity();
  int64_t without_new_low = 0;
};

// Throws kInvalidArgument where a batch of a warm start is larger than its data.
void CheckWarmStartBatch(const configs::SftConfig& options, int64_t rows);

// Runs updates until there are options.steps over shuffled epochs of `train_data` (order keyed by
// seed). A batch larger than the data is an error. Fewer where options.patience held-out losses in
// a row were no new low: the loss is flat, more updates would only learn the demonstrations by
// heart. `on_step` sees every step and what has been done with it; returning false stops early (a
// signal). `done`: what an earlier call did to these weights and this optimizer; this one goes on
// behind it.
SftResult RunSft(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                 const configs::SftConfig& options, uint64_t seed,
                 std::span<const Demonstration> train_data, std::span<const Demonstration> heldout,
                 const std::function<bool(const SftStep&, const SftResult&)>& on_step,
                 const SftResult& done = {});

}  // namespace plumb::learner
