// The head of a packed pass: from the rows that are scored to log-probs and entropies, and back.
//
// Purpose: logits of a chunk of rows at a time, or none at all where one kernel does it (CPU,
// kernels/head); a guest of the pass sees the logits of each chunk.
// Thread safety: one thread. Ownership: owns its list of ids without a token; borrows the rest for
// a call. Where things lie: pass_memory.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device/launch.h"
#include "kernels/head/head_logprob.h"
#include "policy_model/drawn_sets.h"
#include "policy_model/families/model_shape.h"
#include "policy_model/memory/flat_buffer.h"
#include "policy_model/packing.h"
#include "policy_model/pass_guest.h"

namespace plumb::policy_model {

class HeadPass {
 public:
  HeadPass(const ModelShape& shape, const kernels::Launch& launch);

  // R rows of a pass, in the memory of the device.
  struct Rows {
    const PackedBatch& batch;
    const int32_t* targets = nullptr;   // [R]
    const std::byte* normed = nullptr;  // T[R, H]
    const void* w = nullptr;            // T[V, H]
    float temperature = 1;
    float *logprob = nullptr, *entropy = nullptr, *lse = nullptr;  // [R]
    PassGuest* guest = nullptr;
    // float[R, V], what the forward leaves for the backward (kept_logits.h); nullptr: it computes
    // its logits again. The same in both, and not looked at where the head is fused.
    float* kept = nullptr;
  };
  // What a backward takes besides: gradients by row (g_entropy: or nullptr), room for a chunk, the
  // gradient of `normed` (written) and of `w` (added; or nullptr).
  struct Back {
    const float *g_logprob = nullptr, *g_entropy = nullptr;  // [R]
    float* logits = nullptr;
    void* dlogits = nullptr;
    std::byte* dhead = nullptr;  // T[R, H]
    float* dw = nullptr;         // [V, H]
    bool dw_empty = false;       // written instead; not of a fused head
  };

  // `scratch`: PassMemory::HeadBytes of a chunk.
  void Forward(const Rows& of, float* scratch);
  void Backward(const Rows& of, const Back& back);
  // No logits are there: one kernel does it all.
  bool Fused(const Rows& of) const;
  // Takes out of rows of logits what is no token.
  void DropUnused(float* logits, int64_t rows) const;

 private:
  int64_t ChunkOf(const Rows& of) const;
  kernels::HeadShape FusedRows(const Rows& of, int64_t first, int64_t rows);
  void Logits(const Rows& of, int64_t first, int64_t rows, float* logits);
  // Where those of the rows from `first` on lie.
  float* LogitsOf(const Rows& of, int64_t first, float* of_chunk) const {
    return of.kept ? of.kept + first * shape_.vocab : of_chunk;
  }
  HeadRows Shown(const Rows& of, int64_t first, int64_t rows, const float* logits) const;
  const std::byte* At(const Rows& of, int64_t row) const;

  const ModelShape& shape_;
  const kernels::Launch launch_;
  FlatBuffer unused_;  // int32: shape.unused_tokens
  DrawnSets sets_;     // of a chunk of rows
};

}  // namespace plumb::policy_model
