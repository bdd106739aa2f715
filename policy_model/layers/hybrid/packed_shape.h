// Where the sequences of a pass lie, for the kernels of layers that have a state.
//
// Thread safety: a pure function. Ownership: the shape borrows from the pass. Errors: none.
#pragma once

#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

// `shape`: of a kernel over packed sequences. `pass` nullptr: of one that makes a step, which has
// none.
template <class Shape>
void FillSequences(const PackedPass* pass, Shape& shape) {
  if (!pass) return;
  shape.tokens = pass->tokens();
  shape.sequences = pass->attention.sequences;
  shape.cu_seqlens = pass->attention.cu_seqlens;
  shape.parents = pass->attention.parents_there;
}

}  // namespace plumb::policy_model
