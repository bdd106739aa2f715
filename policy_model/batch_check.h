// Whether a model can take a batch.
//
// Purpose: what a forward refuses before it reads anything by it. Thread safety: pure functions.
// Errors: kInvalidArgument, naming the token or length.
#pragma once

#include "policy_model/families/model_shape.h"
#include "policy_model/packing.h"
#include "policy_model/task_pass.h"

namespace plumb::policy_model {

// Token ids within the vocabulary or of `tasks`, positions that the model has. `vocab`: of the
// whole model, where `shape` is that of a share.
void CheckBatch(const ModelShape& shape, const TaskPass& tasks, const PackedBatch& batch,
                int64_t vocab = 0);
// Targets that are tokens (ModelShape::unused_tokens have no log-prob). `first`: the first row of
// the vocabulary that a share has.
void CheckTargets(const ModelShape& shape, const PackedBatch& batch, int64_t first = 0);

}  // namespace plumb::policy_model
