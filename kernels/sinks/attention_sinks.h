// Attention sinks (Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023,
// as gpt-oss learns them): a logit a head that takes a share of every softmax and gives nothing.
//
// Applied to what attention without them has computed: with l = log sum exp of the scores, the
// whole denominator is exp(l') = exp(l) + exp(sink), the output is scaled by exp(l - l'), and l'
// takes the place of l. Then the backward of attention (attention_varlen.h) is right as it is,
// for a sink has no value: D = dout . out is still the sum of p dp.
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// LibTorch's attention in float32 keeps the sums of each sequence by itself: [B, Nq, pitch], its
// tokens first.
struct LseLayout {
  int64_t pitch = 0;  // 0: [Nq, tokens], as on the CPU
  int32_t sequences = 0;
  const int32_t* cu_seqlens = nullptr;  // [B + 1]
};

// The sequence of token t: cu_seqlens[b] <= t < cu_seqlens[b + 1].
PLUMB_HOST_DEVICE inline int32_t SequenceOf(const int32_t* cu_seqlens, int32_t sequences,
                                            int64_t t) {
  int32_t low = 0, high = sequences;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (cu_seqlens[middle] <= t) low = middle;
    else high = middle;
  }
  return low;
}

// Where the log-sum-exp of a head and token lies.
PLUMB_HOST_DEVICE inline int64_t LsePlace(const LseLayout& l, int32_t h, int32_t heads, int64_t t,
                                          int64_t tokens) {
  if (l.pitch == 0) return h * tokens + t;
  const int32_t b = SequenceOf(l.cu_seqlens, l.sequences, t);
  return (int64_t{b} * heads + h) * l.pitch + t - l.cu_seqlens[b];
}

struct AttentionSinks {
  static constexpr const char* kName = "AttentionSinks";
  const void* sinks = nullptr;  // T[Nq]
  int64_t tokens = 0;
  int32_t heads = 0, head_dim = 0;
  void* out = nullptr;   // T[tokens, Nq * D]
  float* lse = nullptr;  // [Nq, tokens]
  LseLayout layout;      // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// dsinks[h] -= sum over t of exp(sink[h] - lse[h, t]) dout[t, h] . out[t, h], in the order of t.
struct AttentionSinksBackward {
  static constexpr const char* kName = "AttentionSinksBackward";
  const void* sinks = nullptr;  // T[Nq]
  const void* dout = nullptr;   // T[tokens, Nq * D]
  const void* out = nullptr;    // with sinks, as lse
  const float* lse = nullptr;
  int64_t tokens = 0;
  int32_t heads = 0, head_dim = 0;
  float* dsinks = nullptr;  // [Nq]
  LseLayout layout;         // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
