// Rotary position embedding (Su et al., "RoFormer", 2021), half-split layout as HF's Llama family
// has it: element i of the first half of the rotated part of a head turns with element i of its
// second half by the angle position * f_i; or `interleaved`, as GLM has it: elements 2 i and 2 i +
// 1 turn together. `dims` elements from the start of a head are rotated, the others stay; 0: none
// (layers without positions). Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include <span>

#include "kernels/device/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// Fills cos_sin: float[max_positions, 2 n] with n cosines, then n sines per row, times `factor`;
// frequencies: [n], radians a position (angles and functions in double). Host memory.
void RopeTable(int64_t max_positions, std::span<const double> frequencies, double factor,
               float* cos_sin);

// In place on the merged rows.
struct RopeInPlace {
  static constexpr const char* kName = "RopeInPlace";
  // T[rows, (Nq + 2 Nkv) * D], heads in the order q, k, v; v is left alone
  void* qkv = nullptr;
  const int32_t* position = nullptr;  // [rows]
  const float* cos_sin = nullptr;     // [max_positions, dims]
  int64_t rows = 0;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  int32_t dims = 0;  // even, at most head_dim
  bool interleaved = false;
  bool inverse = false;  // turns back: the backward of the rotation
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Gradients of turned queries and keys, and of values, each by itself, turned back and side by
// side: what RopeInPlace(inverse) gives on the merged rows. dims 0: they are only brought together.
struct RopeBackward {
  static constexpr const char* kName = "RopeBackward";
  const void* dq = nullptr;           // T[rows, Nq, D]
  const void* dk = nullptr;           // T[rows, Nkv, D]
  const void* dv = nullptr;           // T[rows, Nkv, D]
  const int32_t* position = nullptr;  // [rows]
  const float* cos_sin = nullptr;     // [max_positions, dims]
  int64_t rows = 0;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  int32_t dims = 0;
  bool interleaved = false;
  void* dqkv = nullptr;  // T[rows, (Nq + 2 Nkv) * D]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Generation: rotates q in place and writes rotated k and plain v of every row to its page of
// `layer`. With a bias that is added to the row first, to the bits of AddBias (embedding.h).
struct RopeAndWriteKv {
  static constexpr const char* kName = "RopeAndWriteKv";
  void* qkv = nullptr;         // T[rows.rows, (Nq + 2 Nkv) * D]; without v where kv.keys_only
  const void* bias = nullptr;  // T[(Nq + 2 Nkv) * D]; nullptr: none
  PagedRows rows;
  const float* cos_sin = nullptr;  // [max_positions, dims]
  int32_t heads = 0;
  int32_t dims = 0;
  bool interleaved = false;
  int32_t layer = 0;
  PagedKv kv;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Multiplies the queries of row r, its first `width` elements, by scale[position[r]]; its own
// backward.
struct ScaleQueries {
  static constexpr const char* kName = "ScaleQueries";
  void* qkv = nullptr;                // T[rows, stride]
  const int32_t* position = nullptr;  // [rows]
  const float* scale = nullptr;       // [max_positions]
  int64_t rows = 0, width = 0, stride = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
