// Who looks on at a packed pass and adds to it: at the embeddings, and at the rows that the head
// sees with their logits.
//
// Purpose: what a comparison with another model needs of a pass (learner/distill) without the
// transformer knowing of it. With a guest the head runs in chunks of rows whose logits are there
// (the kernel that leaves none is not used). The order of a pass: Embedded; Forward of each chunk;
// and, where a backward follows, of each chunk BackwardLogits, then BackwardHidden; at its end
// EmbeddedBackward.
// Thread safety: that of the transformer. Ownership: pointers are the pass's, until the call
// returns; on a GPU they are of its memory, and work on them is enqueued on Launch::stream.
// Shapes: T tokens that are laid, R rows of a chunk, H hidden, V vocabulary; T is Launch::dtype.
#pragma once

#include <cstdint>

#include "kernels/device/launch.h"

namespace plumb::policy_model {

// Rows [first, first + rows) of those that are scored.
struct HeadRows {
  int64_t first = 0, rows = 0, width = 0, vocab = 0;
  const void* hidden = nullptr;   // T[R, H], behind the final norm
  const float* logits = nullptr;  // [R, V], of what is no token -infinity
};

class PassGuest {
 public:
  virtual ~PassGuest() = default;
  // x: T[T, H], what the first layer will read; may be changed.
  virtual void Embedded(const kernels::Launch& /*launch*/, int64_t /*tokens*/, int64_t /*width*/,
                        void* /*x*/) {}
  virtual void Forward(const kernels::Launch& /*launch*/, const HeadRows& /*of*/) {}
  // Both add to what is there: dlogits T[R, V], dhidden T[R, H].
  virtual void BackwardLogits(const kernels::Launch& /*launch*/, const HeadRows& /*of*/,
                              void* /*dlogits*/) {}
  virtual void BackwardHidden(const kernels::Launch& /*launch*/, const HeadRows& /*of*/,
                              void* /*dhidden*/) {}
  // dx: T[T, H], the gradient of what Embedded saw.
  virtual void EmbeddedBackward(const kernels::Launch& /*launch*/, int64_t /*tokens*/,
                                int64_t /*width*/, const void* /*dx*/) {}
};

}  // namespace plumb::policy_model
