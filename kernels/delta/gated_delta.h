// The gated delta rule (Yang et al., "Gated Delta Networks", 2024) over a packed batch, in chunks.
//
// A head keeps a state S [K, V] and, with a log decay g <= 0 and a strength beta a token,
//   S = exp(g) S;  S += k (x) (beta (v - S^T k));  o = S^T q
// where q and k are vectors of length 1, q over sqrt(K) besides. Value head h uses the queries and
// keys of head h / (v_heads / k_heads). A chunk of kDeltaChunk tokens is a few small products: with
// c the sum of g within it, E_ij = exp(c_i - c_j) and L_ij = beta_i E_ij k_i k_j below the
// diagonal, the updates u solve (1 + L) u = beta (v - exp(c) k S), and o = exp(c) q S + (E q k) u.
// Sequences as in attention_varlen.h: one that goes on from another begins with that one's state.
// All sums in float32, in an order that depends on the sequence alone. On CUDA
// cu_seqlens and parents lie there. Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

inline constexpr int32_t kDeltaChunk = 64;
inline constexpr float kDeltaNormEps = 1e-6f;  // added to the squared length of q and k

struct DeltaShape {
  int64_t tokens = 0;
  int32_t sequences = 0;
  const int32_t* cu_seqlens = nullptr;  // [B + 1]
  const int32_t* parents = nullptr;     // [B] or nullptr, as in VarlenShape
  int32_t k_heads = 0, v_heads = 0;     // k_heads divides v_heads
  int32_t k_dim = 0, v_dim = 0;         // K, V

  PLUMB_HOST_DEVICE int64_t key_width() const { return int64_t{k_heads} * k_dim; }
  PLUMB_HOST_DEVICE int64_t value_width() const { return int64_t{v_heads} * v_dim; }
  // Of a row: queries, keys, values.
  PLUMB_HOST_DEVICE int64_t width() const { return 2 * key_width() + value_width(); }
  // Floats of one head's state: rows of V are padded to whole vectors.
  PLUMB_HOST_DEVICE int64_t state() const { return int64_t{k_dim} * ((v_dim + 15) / 16 * 16); }
  // States of all heads that GatedDelta writes, at most: how each chunk ends, for the backward;
  // else how those sequences end that others go on from.
  int64_t slots(bool keep) const {
    return keep ? tokens / kDeltaChunk + sequences : parents ? sequences : 0;
  }
};

// Work areas that the blocks of a GPU need, in its memory: how many there are, and floats of each.
inline constexpr int64_t kMostDeltaBlocks = 264;  // two for each multiprocessor of an H100
inline int64_t GatedDeltaBlocks(const DeltaShape& s, bool backward) {
  const int64_t tasks = int64_t{s.sequences} * (backward ? s.k_heads : s.v_heads);
  return tasks < kMostDeltaBlocks ? tasks : kMostDeltaBlocks;
}
inline int64_t GatedDeltaBlockWork(const DeltaShape& s, bool backward) {
  const int64_t keys = int64_t{kDeltaChunk} * s.k_dim, values = int64_t{kDeltaChunk} * s.v_dim,
                square = int64_t{kDeltaChunk} * kDeltaChunk;
  if (!backward) return 2 * (keys + square + values) + s.state();
  return 5 * keys + 8 * square + 4 * values + s.v_heads / s.k_heads * s.state();
}
inline int64_t GatedDeltaWork(const DeltaShape& s, bool backward) {
  return GatedDeltaBlocks(s, backward) * GatedDeltaBlockWork(s, backward);
}

struct GatedDelta {
  static constexpr const char* kName = "GatedDelta";
  DeltaShape shape;
  const void* qkv = nullptr;    // T[tokens, width]
  const float* g = nullptr;     // [tokens, v_heads]
  const float* beta = nullptr;  // [tokens, v_heads]
  bool keep = false;            // a backward follows
  float* states = nullptr;      // [slots(keep), v_heads, state]
  void* out = nullptr;          // T[tokens, value_width]
  float* work = nullptr;        // [GatedDeltaWork(shape, false)]; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Floats of scratch memory that the backward needs.
inline int64_t GatedDeltaScratch(const DeltaShape& shape) {
  return shape.parents ? shape.sequences * shape.v_heads * shape.state() : 0;
}

struct GatedDeltaBackward {
  static constexpr const char* kName = "GatedDeltaBackward";
  DeltaShape shape;
  const void* dout = nullptr;  // T[tokens, value_width]
  const void* qkv = nullptr;   // as of the forward
  const float* g = nullptr;
  const float* beta = nullptr;
  const float* states = nullptr;  // as the forward left them with keep
  void* dqkv = nullptr;           // T[tokens, width], written
  float* dg = nullptr;            // [tokens, v_heads], written
  float* dbeta = nullptr;         // [tokens, v_heads], written
  float* scratch = nullptr;       // [GatedDeltaScratch(shape)]
  float* work = nullptr;          // [GatedDeltaWork(shape, true)]; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
