// Attention of rows that share sequences on Hopper's products of four warps: prompts of a paged
// step and packed batches, with the bits of attention_block.h (prompt_block.h says how).
//
// Purpose: bfloat16, heads of 64 and 128 numbers. A tile of 128 / (heads a KV head) rows reads each
// sequence's keys and values once.
//
// Operations: 4 D a query head, row and key that it sees. Bytes from the L2 cache: 4 D a key and
// tile, so 128 operations a byte.
// Thread safety: pure functions. Ownership: none; memory is the caller's. Units: as they say.
// Errors: those of launch.h. In CUDA builds.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_block.h"
#include "kernels/device/launch.h"

namespace plumb::kernels {

// Whether the current device has such products, for heads of this size.
bool PromptAttentionFits(int32_t head_dim);

// Rows [begin, end) of the call; rows_a_block and what is shared or partial in `work` does not
// count. REQUIRES: PromptAttentionFits, at most 64 heads a KV head, pointers and strides on 16
// bytes.
void StartPromptAttention(const Launch& launch, AttentionWork work, int32_t head_dim);

}  // namespace plumb::kernels
