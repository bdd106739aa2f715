// Whether a model can take a batch.
//
// Purpose: what a forward refuses before it reads anything by it. Thread safety: pure functions.
// Errors: kInvalidArgument, naming the token or length.
#pragma once

#include "policy_model/families/model_shape.h"
#include "policy_model/packing.h"
#include "policy_model/task_pass.h"

namespace plumb::policy_model {

// Token ids within the vocabulary or of `tasks`, positions that the model has.
void CheckBatch(const ModelShape& shape, const TaskPass& tasks, const PackedBatch& batch);
// Targets that are tokens (ModelShape::unused_tokens have no log-prob).
void CheckTargets(const ModelShape& shape, const PackedBatch& batch);

}  // namespace plumb::policy_model
