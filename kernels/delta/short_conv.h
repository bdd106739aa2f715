// A short causal convolution of every channel by itself: y_t = act(sum_i w_i x_(t - K + 1 + i)),
// where x before the beginning of a sequence is 0.
//
// x and y lie in columns of wider rows. Sequences as in attention_varlen.h: one that goes on from
// another sees that one's last tokens. A step reads and writes the last K - 1 inputs of its slot
// (sequence_states.h). A result depends on its own sequence alone, bit for bit. On CUDA
// cu_seqlens and parents lie there. Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/delta/sequence_states.h"
#include "kernels/device/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

inline constexpr int32_t kMostTaps = 16;

struct ShortConvShape {
  int64_t tokens = 0;
  int32_t sequences = 0;
  const int32_t* cu_seqlens = nullptr;  // [B + 1]
  const int32_t* parents = nullptr;     // [B] or nullptr, as in VarlenShape
  int64_t channels = 0;                 // C
  int32_t taps = 0;                     // K, 1 to kMostTaps
  bool silu = false;                    // act; else none
  int64_t x_stride = 0, y_stride = 0;   // elements from row to row
};

struct ShortConv {
  static constexpr const char* kName = "ShortConv";
  ShortConvShape shape;
  const void* x = nullptr;  // T[tokens, C]
  const void* w = nullptr;  // T[C, K]
  void* y = nullptr;        // T[tokens, C]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct ShortConvBackward {
  static constexpr const char* kName = "ShortConvBackward";
  ShortConvShape shape;
  const void* dy = nullptr;  // T[tokens, C], rows y_stride apart
  const void* x = nullptr;   // as of the forward
  const void* w = nullptr;
  void* dx = nullptr;   // T[tokens, C], rows x_stride apart, written
  float* dw = nullptr;  // [C, K], added to; nullptr: not wanted
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// The rows of a slot lie together, in ascending position.
struct ShortConvStep {
  static constexpr const char* kName = "ShortConvStep";
  ShortConvShape shape;  // tokens and sequences are not looked at
  PagedRows rows;
  const void* x = nullptr;  // T[rows, C]
  const void* w = nullptr;
  SequenceStates states;
  int64_t offset = 0;  // of this layer's [K - 1, C] within a row, the oldest first
  void* y = nullptr;   // T[rows, C]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
