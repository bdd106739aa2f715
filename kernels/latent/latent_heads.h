// What latent attention does besides products, norms and attention itself (DeepSeek-AI,
// "DeepSeek-V2", 2024): keys and values of all heads follow from one vector c a token, the latent,
// by a matrix W of [Nq * (nope + value), rank]; positions are in `rope` more elements of a query
// and in a rotated key that all heads share.
//
// Two forms of the same function. Plain: W c gives every head its keys and values, which attention
// over Nq heads sees (JoinLatentHeads). Absorbed: a query goes through the transposed key part of W
// instead, and what attention mixed of the latents goes through the value part; then a token is
// rank + rope numbers to all heads, and these are what is kept of it (AbsorbQueries, ExpandValues).
// A row's results do not depend on the other rows. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct LatentShape {
  int64_t rows = 0;
  int32_t heads = 0;                      // Nq
  int32_t nope = 0, rope = 0, value = 0;  // elements of a head
  int32_t rank = 0;                       // of the latent
  int32_t head = 0;                       // of a merged head: at least nope + rope and value

  PLUMB_HOST_DEVICE int64_t query_width() const { return int64_t{heads} * (nope + rope); }
  PLUMB_HOST_DEVICE int64_t kv_width() const { return int64_t{heads} * (nope + value); }
  PLUMB_HOST_DEVICE int64_t merged_width() const { return int64_t{3} * heads * head; }
  PLUMB_HOST_DEVICE int32_t cached() const { return rope + rank; }
};

// Merged rows for attention: heads of q and k are [rope | nope | 0], those of v [value | 0].
struct JoinLatentHeads {
  static constexpr const char* kName = "JoinLatentHeads";
  LatentShape shape;
  const void* q = nullptr;     // T[rows, Nq * (nope + rope)]
  const void* kv = nullptr;    // T[rows, Nq * (nope + value)]
  const void* down = nullptr;  // T[rows, rank + rope]: behind the latent the shared key
  void* qkv = nullptr;         // T[rows, 3 * Nq * head]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// The way back: the shared key's gradient is the sum over the heads.
struct SplitLatentHeads {
  static constexpr const char* kName = "SplitLatentHeads";
  LatentShape shape;
  const void* dqkv = nullptr;  // T[rows, 3 * Nq * head]
  void* dq = nullptr;          // T[rows, Nq * (nope + rope)]
  void* dkv = nullptr;         // T[rows, Nq * (nope + value)]
  void* ddown = nullptr;       // T[rows, rank + rope], of the latent 0
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Heads of `head` elements to heads of `value`, and back with zeros behind.
struct TakeValues {
  static constexpr const char* kName = "TakeValues";
  LatentShape shape;
  const void* mixed = nullptr;  // T[rows, Nq * head]
  void* values = nullptr;       // T[rows, Nq * value]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};
struct PutValues {
  static constexpr const char* kName = "PutValues";
  LatentShape shape;
  const void* values = nullptr;  // T[rows, Nq * value]
  void* mixed = nullptr;         // T[rows, Nq * head]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Rows for paged attention of Nq heads over one: queries [rope | W_k^T nope], then the key
// [rope | latent].
struct AbsorbQueries {
  static constexpr const char* kName = "AbsorbQueries";
  LatentShape shape;
  const void* q = nullptr;       // T[rows, Nq * (nope + rope)]
  const void* down = nullptr;    // T[rows, rank + rope]: behind the latent the shared key
  const void* latent = nullptr;  // T[rows, rank], normed
  const void* w = nullptr;       // T[Nq * (nope + value), rank]
  void* out = nullptr;           // T[rows, (Nq + 1) * (rope + rank)]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct ExpandValues {
  static constexpr const char* kName = "ExpandValues";
  LatentShape shape;
  const void* mixed = nullptr;  // T[rows, Nq * (rope + rank)]
  const void* w = nullptr;      // T[Nq * (nope + value), rank]
  void* values = nullptr;       // T[rows, Nq * value]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
