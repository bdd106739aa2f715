// Where a stage of a pipeline begins and ends in a packed pass: a rank that has a range of a
// model's layers reads what the stage below gave instead of the embedding, and hands on what its
// last layer gives instead of scoring rows.
//
// Protocol, as the guest of a pass (ScoreOptions::guest). Forward: `input` is set before by a stage
// that is not the first; `output` is there behind it of one that is not the last, until its
// Backward or the next pass; such a stage scores nothing, its log-probs and entropies are empty.
// Backward: `output_gradient` is set before by a stage that is not the last; `input_gradient` is
// there behind it of one that is not the first, until the next pass.
// Thread safety: that of the transformer. Ownership: pointers are borrowed both ways; on a GPU they
// are of its memory and of the pass' stream. Shapes: T[T, H], T packed tokens, of the pass' type.
#pragma once

#include <cstdint>

#include "policy_model/pass_guest.h"

namespace plumb::policy_model {

struct StageEnds : PassGuest {
  bool first = true, last = true;
  int64_t vocab = 0;  // rows of the whole model's vocabulary, from which the tokens are
  const void* input = nullptr;
  const void* output = nullptr;
  const void* output_gradient = nullptr;
  const void* input_gradient = nullptr;
};

}  // namespace plumb::policy_model
