// How many bytes of memory a Transformer's passes take, before there is one.
//
// Purpose: for the plan of a run's memory. They are the arenas' own: the layers lay their regions
// out as they would for the pass itself (pass_memory.h), only that nothing is taken.
// Thread safety: pure functions. The weights need not have memory (Weights::WithoutMemory).
#pragma once

#include <cstdint>

#include "configs/choices.h"
#include "policy_model/memory/weights.h"

namespace plumb::policy_model {

// A micro-batch without shared beginnings.
struct PassSize {
  int64_t tokens = 0;   // T
  int64_t rows = 0;     // R, scored
  int64_t longest = 0;  // sequence
};

struct PassBytes {
  int64_t saved = 0, scratch = 0;
  int64_t total() const { return saved + scratch; }
};

// What a Transformer of this model holds after a forward and a backward of that size, its first
// ones. `guest`: somebody looks at the logits (pass_guest.h). `of_group`: the weights are a share
// of a model that ranks compute together. Where they are one of a model whose experts are shared
// out, as many rows come to the experts here as go from here to others.
// `products`: Transformer::UseProducts.
PassBytes BytesOfTraining(const Weights& weights, const PassSize& size, bool recompute,
                          bool guest = false, bool of_group = false,
                          configs::Products products = configs::Products::kDType);
// After a forward alone.
PassBytes BytesOfScoring(const Weights& weights, const PassSize& size, bool guest = false);
// After a paged step of so many rows.
int64_t BytesOfStep(const Weights& weights, int64_t rows, int64_t logit_rows);
// Its tables of positions.
int64_t BytesOfPositions(const Weights& weights);

}  // namespace plumb::policy_model
