// Training without actors: rows of a dataset -> objective -> update, until the run's steps are
// done.
//
// Purpose: the offline counterpart of learner_loop.h, with the same hooks, checkpoints and results:
// epochs in an order that follows from (seed, epoch), the held-out part before and after, a resume
// that goes on bit for bit (CPU, equal threads). In an EvalResult of such a run `accuracy` is the
// share ranked right, `reward` the mean margin, `loss` the held-out loss; of demonstrations there
// are `loss` and `perplexity` alone. What a checkpoint, a stop and an error do:
// learner/loop/step_loop.h.
// Thread safety: one thread. Ownership: borrows everything. Errors: those of objective and
// checkpoints.
#pragma once

#include <cstdint>

#include "configs/config.h"
#include "learner/loop/step_loop.h"
#include "learner/offline/curriculum.h"
#include "learner/offline/offline_objective.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

struct OfflineOptions {
  int64_t batch = 16;   // rows an update
  bool shuffle = true;  // another order in every epoch
  Curriculum curriculum = {};
  // What the objective trains with, for the load of its experts; nullptr: nobody looks after it.
  policy_model::Transformer* transformer = nullptr;
};

// Throws kInvalidArgument where an update takes more rows than there are to train on.
void CheckOfflineBatch(const configs::Config& config, int64_t batch, int64_t rows);

// Uses run.steps, run.seed, run.checkpoint_every, eval.every and the learning-rate schedule of
// `config`. `weights` are those of step 0; `resume` replaces them by the newest verified
// checkpoint's, when there is one.
LearnerResult RunOffline(const configs::Config& config, const OfflineOptions& options,
                         OfflineObjective& objective, policy_model::Weights& weights,
                         Optimizer& optimizer, Checkpoints& checkpoints, const LearnerHooks& hooks,
                         bool resume, Ranks* ranks = nullptr);

}  // namespace plumb::learner
