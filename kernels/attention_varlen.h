// Causal grouped-query attention over a packed batch: sequence b owns tokens cu_seqlens[b] .. cu_seqlens[b+1].
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
  int32_t max_seqlen = 0;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
};

// qkv: T[tokens, (Nq + 2 Nkv) * D] after the rotation; out: T[tokens, Nq * D]; lse: float[Nq, tokens]. Scale D^-1/2.
void AttentionVarlenForward(const Launch& launch, const VarlenShape& shape, const void* qkv, void* out, float* lse);

// dqkv: T[tokens, (Nq + 2 Nkv) * D], written. scratch: float[AttentionVarlenScratch(shape)].
int64_t AttentionVarlenScratch(const VarlenShape& shape);
void AttentionVarlenBackward(const Launch& launch, const VarlenShape& shape, const void* dout, const void* qkv,
                             const void* out, const float* lse, void* dqkv, float* scratch);

}  // namespace plumb::kernels
