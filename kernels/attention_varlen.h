// Causal grouped-query attention over a packed batch: sequence b owns tokens cu_seqlens[b] .. cu_seqlens[b+1], and sees
// besides them all tokens of the sequence that it goes on from, where it has one: what several sequences begin with is
// there once. A pair with a prompt of 3 tokens and answers of 2 and 1: cu_seqlens 0 3 5 6, parents -1 0 0.
//
// Online softmax in the manner of FlashAttention (Dao et al., 2022): scores are never stored; the backward recomputes
// them from the log-sum-exp.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

struct VarlenShape {
  int64_t tokens = 0;               // T = cu_seqlens[sequences]
  int32_t sequences = 0;            // B
  const int32_t* cu_seqlens = nullptr;  // [B + 1], in the device's memory
  // [B], in host memory; nullptr: none goes on from another. -1, or a sequence that has no parent itself; those with the
  // same parent follow it directly.
  const int32_t* parents = nullptr;
  int32_t max_seqlen = 0;               // longest, with what it goes on from
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
};

// qkv: T[tokens, (Nq + 2 Nkv) * D] after the rotation; out: T[tokens, Nq * D]; lse: float[Nq, tokens]. Scale D^-1/2.
void AttentionVarlenForward(const Launch& launch, const VarlenShape& shape, const void* qkv, void* out, float* lse);

// Floats of scratch memory that the backward needs; 0 where no sequence has a parent. Reads cu_seqlens on the host: CPU only.
int64_t AttentionVarlenScratch(const VarlenShape& shape);
// dqkv: T[tokens, (Nq + 2 Nkv) * D], written. The order of every sum is that of the sequences, whatever the threads.
void AttentionVarlenBackward(const Launch& launch, const VarlenShape& shape, const void* dout, const void* qkv,
                             const void* out, const float* lse, void* dqkv, float* scratch);

}  // namespace plumb::kernels
