// Causal grouped-query attention of generation: each row reads the keys and values of its sequence
// from the pages.
//
// A row's result depends only on its own query and its sequence's pages: the same bits for any
// batch and for any split of a prompt into prefill chunks. On the CPU also the same for any page
// size. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// Row r attends to positions 0 .. position[r], or with a window to the last `window` of them and to
// those before that `global_every` divides.
struct AttentionPaged {
  static constexpr const char* kName = "AttentionPaged";
  const void* q = nullptr;  // the first Nq * D columns of T[rows, q_stride]
  int64_t q_stride = 0;
  PagedRows rows;
  int32_t heads = 0;
  int32_t layer = 0;
  PagedKv kv;
  float scale = 0;           // of the scores, usually head_dim^-1/2
  int32_t window = 0;        // 0: all positions
  int32_t global_every = 0;  // 0: nothing beyond the window
  // T[Nq] logits that take a share and give nothing (sinks/attention_sinks.h); nullptr: none
  const void* sinks = nullptr;
  // Positions before the window that each row sees besides, -1 behind the last, and what is added
  // to their scores (sparse/token_gate.h), [rows, chosen_count] both; global_every is 0 then
  const int32_t* chosen = nullptr;
  const float* chosen_weight = nullptr;
  int32_t chosen_count = 0;
  void* out = nullptr;   // T[rows, Nq * D]
  float* lse = nullptr;  // [Nq, rows] log-sum-exp of the scores; nullptr: not asked
  // AttentionPagedScratch bytes on 16, or nullptr: single rows are divided no further then
  void* scratch = nullptr;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Bytes of `scratch` that a GPU makes use of for a call of these sizes; pointers of `k` are not
// looked at, but for what it has besides keys and values. 0 on the CPU.
int64_t AttentionPagedScratch(const Launch& launch, const AttentionPaged& k);

// Copies page `from` to page `to` in every layer (a shared partial page before it is written).
struct CopyPages {
  static constexpr const char* kName = "CopyPages";
  const int32_t* from = nullptr;  // [count]
  const int32_t* to = nullptr;    // [count]
  int32_t count = 0;
  PagedKv kv;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
