// What attention over a window gains from tokens before it that a gate chose (token_gate.h).
//
// Applied to what AttentionVarlen has computed, as sinks are (sinks/attention_sinks.h): with l the
// log-sum-exp of the window, scores s_j + log sigmoid(gate_j) of the chosen keys join it, the
// output becomes that of both, and the log-sum-exp takes the place of l. Then the backward of the
// window's attention is right as it is, and this one adds what the chosen keys get. The set itself
// has no gradient; the gate learns through what it adds to the scores. On CUDA also what a window
// gains from the positions that shape.global_every divides, which AttentionVarlen of the CPU looks
// at itself: `chosen` and `gate` are nullptr then, and nothing is added to scores. The arrays of a
// shape, `parents` too, lie in the device's memory there, and sums are taken in an order that
// depends on the shape alone. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/attention_varlen.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::kernels {

struct ChosenAttention {
  static constexpr const char* kName = "ChosenAttention";
  VarlenShape shape;                // heads, tokens, scale
  const void* qkv = nullptr;        // as AttentionVarlen
  const float* gate = nullptr;      // [tokens]
  const int32_t* chosen = nullptr;  // [tokens, count], -1 behind the last
  int32_t count = 0;
  void* out = nullptr;   // T[tokens, Nq * D], of the window; becomes that of both
  float* lse = nullptr;  // [Nq, tokens], the same
  LseLayout layout;      // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Floats of scratch memory of the backward.
int64_t ChosenAttentionScratch(const VarlenShape& shape, Device device = Device::kCpu);

// After AttentionVarlenBackward with out and lse of both. Sums are in the order of the queries,
// whatever the threads.
struct ChosenAttentionBackward {
  static constexpr const char* kName = "ChosenAttentionBackward";
  VarlenShape shape;
  const void* dout = nullptr;
  const void* qkv = nullptr;
  const void* out = nullptr;
  const float* lse = nullptr;
  const float* gate = nullptr;
  const int32_t* chosen = nullptr;
  int32_t count = 0;
  void* dqkv = nullptr;      // T[tokens, (Nq + 2 Nkv) * D], added to
  float* dgate = nullptr;    // [tokens], written; nullptr where there is no gate
  float* scratch = nullptr;  // [ChosenAttentionScratch(shape, device)]; nullptr where dgate is
  LseLayout layout;          // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
