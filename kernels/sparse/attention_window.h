// Causal grouped-query attention within a window, in float32, over queries, keys and values that
// lie by themselves: LibTorch's memory-efficient operator (2.11) has wrong gradients under a window
// where a sequence has more keys than queries, as answers behind a shared prompt have, so on CUDA
// policy_model/layers/attention.h takes these.
//
// Sequence b owns queries cu_q[b] .. cu_q[b + 1] and keys cu_k[b] .. cu_k[b + 1], at least as many;
// its last query sees its last key, and each query the window - 1 keys before its own, too.
// Gradients are sums in the order of keys and of queries. The CPU's implementation is the plain
// definition, for tests. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct WindowShape {
  int64_t queries = 0, keys = 0;    // T and K, of all sequences
  int32_t sequences = 0;            // B
  const int32_t* cu_q = nullptr;    // [B + 1]
  const int32_t* cu_k = nullptr;    // [B + 1]
  int64_t q_stride = 0;             // floats from a query's heads to the next one's
  int64_t k_stride = 0;             // of keys and of values
  int32_t heads = 0, kv_heads = 0;  // Nq a multiple of Nkv
  int32_t head_dim = 0;             // D, at most 256
  float scale = 0;
  int32_t window = 0;  // > 0
};

struct AttentionWindow {
  static constexpr const char* kName = "AttentionWindow";
  WindowShape shape;
  const float* q = nullptr;  // [T, Nq * D]
  const float* k = nullptr;  // [K, Nkv * D]
  const float* v = nullptr;
  float* out = nullptr;  // [T, Nq * D], contiguous
  float* lse = nullptr;  // [Nq, T]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct AttentionWindowBackward {
  static constexpr const char* kName = "AttentionWindowBackward";
  WindowShape shape;
  const float* q = nullptr;  // as of the forward
  const float* k = nullptr;
  const float* v = nullptr;
  const float* out = nullptr;  // sinks may have scaled it, with lse (kernels/sinks)
  const float* lse = nullptr;
  const float* dout = nullptr;  // [T, Nq * D]
  float* dq = nullptr;          // [T, Nq * D], contiguous, as all gradients; written
  float* dk = nullptr;          // [K, Nkv * D]
  float* dv = nullptr;
  float* scratch = nullptr;  // [Nq, T]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
