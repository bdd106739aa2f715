// Paged attention on the tensor cores: for which calls of AttentionPaged it is, and how it divides
// the work.
//
// Purpose: bfloat16 rows over bfloat16 pages. Prompt chunks: a block takes a tile of consecutive
// rows and reads each sequence's keys and values once for the rows of it that lie there. Single
// rows (PagedRows::single): a block a row and KV head, or where those are few, several that share
// out its splits of 128 keys and leave their sums for a second kernel to fold. The keys that rows
// of a group share (PagedRows::shared_with) are read once a tile of rows before that. All ways
// give a row the same bits (attention_block.h).
//
// Bytes: a step reads each single row's own keys and values once, a shared part once for each
// 64 / (heads a KV head) rows of its group, and a prompt's once for as many rows of a chunk.
// Thread safety: pure functions. Ownership: none; memory is the caller's. Units: as they say.
// Errors: those of launch.h.
#pragma once

#include <cstdint>

#include "kernels/attention_paged.h"

namespace plumb::kernels {

// Whether the numbers of a call allow it. They are those of a model and of how it is kept, never
// of a batch, so that all rows of a run are computed one way.
bool TensorAttentionFits(DType dtype, const AttentionPaged& k);

struct TensorAttentionPlan {
  int32_t most_splits = 1;  // of a row
  int32_t pieces = 1;       // blocks a row and KV head; 1: they fold themselves
  int64_t totals = 0;       // floats: of the keys that a group's rows share
  int64_t partials = 0;     // floats: of the splits, if pieces > 1
  int64_t floats() const { return totals + partials; }
};

// Of the single rows of a call; of sizes alone, so that a recorded step holds for all lengths.
// Without memory for it (AttentionPaged::scratch) pieces are 1 and nothing is shared.
TensorAttentionPlan PlanTensorAttention(const AttentionPaged& k);

// REQUIRES: TensorAttentionFits, pointers on 16 bytes, q_stride a multiple of 8. In CUDA builds.
void StartTensorAttention(const Launch& launch, const AttentionPaged& k);

}  // namespace plumb::kernels
