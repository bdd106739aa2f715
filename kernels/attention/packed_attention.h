// Causal grouped-query attention over a packed batch (attention_varlen.h) on the tensor cores of
// Hopper: its forward, with the bits that generation has (attention_block.h), and a backward whose
// sums have a fixed order.
//
// Purpose: bfloat16 with sums in float32, heads of 64 and 128 numbers. The backward takes seven
// products where one that adds queries' gradients by atomics takes five: one pass over tiles of
// queries for theirs (query_gradient_block.h), one over tiles of keys for those of keys and values
// (key_gradient_block.h), which holds the sums over a KV head's query heads in registers. Each
// gradient is written once, where it belongs in the merged rows, turned back on the way if wanted.
//
// Operations, a query head and a pair of a row and a key that it sees: 4 D forward, 14 D backward.
// The CPU's implementation is attention_varlen_cpu.cc and rope_cpu.cc. Shapes as of
// attention_varlen.h, but parents lie in the device's memory; global_every does not count here.
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/attention_varlen.h"

namespace plumb::kernels {

// Whether the current device has a kernel for it. Pointers on 16 bytes are needed besides.
bool PackedAttentionFits(const Launch& launch, const VarlenShape& shape);

struct PackedAttention {
  static constexpr const char* kName = "PackedAttention";
  VarlenShape shape;
  const void* qkv = nullptr;  // T[tokens, (Nq + 2 Nkv) * D], after the rotation
  void* out = nullptr;        // T[tokens, Nq * D]
  float* lse = nullptr;       // [Nq, tokens]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;  // REQUIRES: PackedAttentionFits
};

// Floats of scratch memory, on 16 bytes, that the backward needs on a GPU; on the CPU it is
// AttentionVarlenScratch.
int64_t PackedAttentionScratch(const VarlenShape& shape);

// How queries and keys were turned (rope.h), so that their gradients are turned back.
struct TurnTable {
  const int32_t* position = nullptr;  // [tokens]
  const float* cos_sin = nullptr;     // [max_positions, dims]
  int32_t dims = 0;                   // 0: they were not
  bool interleaved = false;
};
// Whether the GPU's backward does that on the way: all of a head, or interleaved.
bool TurnsOnTheWay(const VarlenShape& shape, const TurnTable& turn);

struct PackedAttentionBackward {
  static constexpr const char* kName = "PackedAttentionBackward";
  VarlenShape shape;
  const void* dout = nullptr;  // T[tokens, Nq * D]
  const void* qkv = nullptr;   // as of the forward
  const void* out = nullptr;   // sinks may have scaled it, with lse (kernels/sinks)
  const float* lse = nullptr;  // [Nq, tokens]
  TurnTable turn;              // REQUIRES: TurnsOnTheWay
  void* dqkv = nullptr;        // T[tokens, (Nq + 2 Nkv) * D], written
  float* scratch = nullptr;    // [PackedAttentionScratch(shape)]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;  // REQUIRES: PackedAttentionFits
};

}  // namespace plumb::kernels
