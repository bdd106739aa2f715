// Causal grouped-query attention over a packed batch: sequence b owns tokens cu_seqlens[b] ..
// cu_seqlens[b+1], and sees besides them all tokens of the sequence that it goes on from, where it
// has one: what several sequences begin with is there once. A pair with a prompt of 3 tokens and
// answers of 2 and 1: cu_seqlens 0 3 5 6, parents -1 0 0.
//
// Online softmax in the manner of FlashAttention (Dao et al., 2022): scores are never stored; the
// backward recomputes them from the log-sum-exp. With a window, keys that no query of a block sees
// are not looked at; what is seen beyond the window is gathered once a sequence. Thread safety,
// alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct VarlenShape {
  int64_t tokens = 0;                   // T = cu_seqlens[sequences]
  int32_t sequences = 0;                // B
  const int32_t* cu_seqlens = nullptr;  // [B + 1], in the device's memory
  // [B], in host memory but where a kernel says otherwise; nullptr: none goes on from another. -1,
  // or a sequence that has no parent itself; those with the same parent follow it directly.
  const int32_t* parents = nullptr;
  int32_t max_seqlen = 0;  // longest, with what it goes on from
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;     // of the scores, usually head_dim^-1/2
  int32_t window = 0;  // a token sees itself and the window - 1 before it; 0: all before it
  // under a window: every position of the sequence that this divides is seen by all behind it, too;
  // 0: none
  int32_t global_every = 0;
};

struct AttentionVarlen {
  static constexpr const char* kName =
      "AttentionVarlen (on CUDA LibTorch does it, in policy_model)";
  VarlenShape shape;
  const void* qkv = nullptr;  // T[tokens, (Nq + 2 Nkv) * D], after the rotation
  void* out = nullptr;        // T[tokens, Nq * D]
  float* lse = nullptr;       // [Nq, tokens]
  void Cpu(const Launch& launch) const;
};

// Floats of scratch memory that the backward needs; 0 where no sequence has a parent. Reads
// cu_seqlens on the host: CPU only.
int64_t AttentionVarlenScratch(const VarlenShape& shape);

// The order of every sum is that of the sequences, whatever the threads.
struct AttentionVarlenBackward {
  static constexpr const char* kName =
      "AttentionVarlenBackward (on CUDA LibTorch does it, in policy_model)";
  VarlenShape shape;
  const void* dout = nullptr;  // T[tokens, Nq * D]
  const void* qkv = nullptr;   // as of the forward
  const void* out = nullptr;
  const float* lse = nullptr;
  void* dqkv = nullptr;      // T[tokens, (Nq + 2 Nkv) * D], written
  float* scratch = nullptr;  // [AttentionVarlenScratch(shape)]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
