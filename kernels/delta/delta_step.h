// The gated delta rule (gated_delta.h) token by token, for rows of a paged step.
//
// The rows of a slot lie together, in ascending position; each updates the slot's state and reads
// it. A row's result depends on its own sequence alone, bit for bit: not on the other rows, nor on
// how a prompt is cut into steps. Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/delta/gated_delta.h"
#include "kernels/delta/sequence_states.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

struct DeltaStep {
  static constexpr const char* kName = "DeltaStep";
  DeltaShape shape;  // tokens and sequences are not looked at
  PagedRows rows;
  const void* qkv = nullptr;    // T[rows, width]
  const float* g = nullptr;     // [rows, v_heads]
  const float* beta = nullptr;  // [rows, v_heads]
  SequenceStates states;
  int64_t offset = 0;   // of this layer's [v_heads, state] within a row
  void* out = nullptr;  // T[rows, value_width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
