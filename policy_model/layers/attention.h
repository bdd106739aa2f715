// Causal grouped-query attention of a packed batch, on whichever device: kernels/attention_varlen
// on the CPU; on CUDA kernels/attention/packed_attention in bfloat16 where it fits (Hopper, heads
// of 64 and 128), else LibTorch's variable-length flash (bfloat16) and memory-efficient (float32)
// attention, with zeros behind heads that are not whole 16 bytes; there windows in float32 are
// kernels/sparse/attention_window's, and kernels/sparse/chosen_attention adds single positions
// beside a window.
//
// Under run.exact the forward in bfloat16 on CUDA is the kernel that generation reads its pages
// with, over the packed rows as pages of one token: what it gives a row is what the row was sampled
// with, bit for bit. The backward takes the output and the log-sum-exp from there, whose ever it
// is.
//
// Shapes as in kernels/attention_varlen.h; shape.cu_seqlens lies in the device's memory. Thread
// safety: pure functions of their buffers. On CUDA the results of LibTorch are copied into the
// caller's buffers (its operators take no outputs).
#pragma once

#include "kernels/attention_paged.h"
#include "kernels/attention_varlen.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::policy_model {

// Besides what the kernel on the CPU needs, for CUDA and only where `parents` is set: the tokens
// that each sequence sees, its parent's and its own, one sequence after another. In the device's
// memory.
struct AttentionShape : kernels::VarlenShape {
  int64_t all_seen = 0;              // K
  const int32_t* seen = nullptr;     // [K]
  const int32_t* cu_seen = nullptr;  // [B + 1], where each sequence's begin
  // The same by token: token t is seen at places[place_begins[t]] and on, up to place_begins[t +
  // 1], ascending.
  const int32_t* places = nullptr;        // [K]
  const int32_t* place_begins = nullptr;  // [T + 1]
  // Where `parents` is set, the same in the device's memory: for layers with states, and for what
  // is seen besides a window.
  const int32_t* parents_there = nullptr;
  // What generation's kernel looks at (PackedAsPaged): where in `seen`, which is there then with or
  // without parents, the sequence of each token begins, and the token's place in the sequence.
  // nullptr: the batch, or the layer, is not computed by it.
  const int32_t* begins = nullptr;     // [T]
  const int32_t* positions = nullptr;  // [T]
};

// The forward of a packed batch as a step of generation would compute it: a token is a page whose
// number `seen` has, and its keys and values are read where they lie between the others' queries.
// REQUIRES: begins, positions.
kernels::AttentionPaged PackedAsPaged(const kernels::Launch& launch, const AttentionShape& shape,
                                      const void* qkv, void* out, float* lse);

// Whether AttentionForward does that: where kernels::ExactOn says so, and on a GPU the tensor cores
// take it (kernels/attention/tensor_attention.h), as they do in a step of generation.
bool AttendsAsGenerated(const kernels::Launch& launch, const AttentionShape& shape);

// Floats of `lse` that AttentionForward fills and AttentionBackward reads.
int64_t AttentionLseElements(const kernels::Launch& launch, const kernels::VarlenShape& shape);

// How they lie.
kernels::LseLayout AttentionLseLayout(const kernels::Launch& launch,
                                      const kernels::VarlenShape& shape);

void AttentionForward(const kernels::Launch& launch, const AttentionShape& shape, const void* qkv,
                      void* out, float* lse);

// How queries and keys were turned before they were compared.
struct Turned {
  const int32_t* position = nullptr;  // [T], in the device's memory
  const float* cos_sin = nullptr;     // [max_positions, dims]
  int32_t dims = 0;
  bool interleaved = false;
};

// scratch: float[kernels::AttentionVarlenScratch(shape)], unused on CUDA. `turned`: nullptr, or
// where the gradients may be turned back while they are brought together, which saves a pass over
// them; returns whether they were.
bool AttentionBackward(const kernels::Launch& launch, const AttentionShape& shape, const void* dout,
                       const void* qkv, const void* out, const float* lse, void* dqkv,
                       float* scratch, const Turned* turned = nullptr);

}  // namespace plumb::policy_model
