// What attention gains from a table of keys and values that is the same for all tokens and is not
// trained: every head asks it with its query before rotation, because the table has no positions.
//
// Applied to what attention has computed, as chosen keys are (chosen_attention.h): scores of all
// rows of the table join the softmax. Keys and values are floats whatever the model's type. Time
// and memory grow with rows times N; nothing of N is kept of a token. A row's results do not depend
// on the other rows. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::kernels {

struct TableShape {
  int64_t rows = 0;  // tokens
  int32_t heads = 0, head_dim = 0;
  float scale = 0;
  const float* keys = nullptr;    // [N, D]
  const float* values = nullptr;  // [N, D]
  int64_t entries = 0;            // N
};

struct TableAttention {
  static constexpr const char* kName = "TableAttention";
  TableShape shape;
  const void* q = nullptr;  // T[rows, Nq * D]
  void* out = nullptr;      // T[rows, Nq * D], of the sequence; becomes that of both
  float* lse = nullptr;     // [Nq, rows], the same
  LseLayout layout;         // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct TableAttentionBackward {
  static constexpr const char* kName = "TableAttentionBackward";
  TableShape shape;
  const void* dout = nullptr;
  const void* q = nullptr;
  const void* out = nullptr;  // of both, as lse
  const float* lse = nullptr;
  void* dq = nullptr;  // T[rows, Nq * D], written
  LseLayout layout;    // of lse; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
