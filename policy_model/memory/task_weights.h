// The gate of adapters with tasks: w[t] = softmax(W e_t), and the way back to W and e.
//
// Purpose: the few numbers that every pass over such a policy begins with (forward) and ends with
// (backward); what they weigh is layers/linear.h.
// Thread safety: pure functions of what they are given. All numbers but the set's lie in the
// memory of the host; of a set on a GPU its tables are copied, which waits for its stream. Errors:
// none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/memory/parameter_set.h"

namespace plumb::policy_model {

// Tasks and adapters of a set. REQUIRES: set.adapter->gated().
inline size_t TasksOf(const ParameterSet& set) { return set.adapter->spec().tasks.size(); }
inline size_t AdaptersOf(const ParameterSet& set) {
  return static_cast<size_t>(set.adapter->spec().adapters);
}

// Writes [tasks, adapters] to `weights`, which keeps its memory.
void TaskWeights(const ParameterSet& set, std::vector<float>& weights);

// Adds what `dweights` [tasks, adapters], the derivatives of a loss by the weights, make of the
// gradients of embeddings and gate; either may be nullptr: it is not trained.
void TaskWeightsBackward(const ParameterSet& set, std::span<const float> weights,
                         std::span<const double> dweights, float* dembedding, float* dgate);

// The set of one task alone, `into` being of AdapterSpec::ForTask: the weights go into B.
void FoldTask(const ParameterSet& set, size_t task, ParameterSet& into);

}  // namespace plumb::policy_model
