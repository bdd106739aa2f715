// One key or value of a head in fewer bits, with scales of its own: what the pages of the KV cache
// hold under rollout.kv_type (paged_kv.h has the sizes).
//
//   int8   scale (bfloat16), then a byte a number: x = scale * q, q in [-127, 127]
//   fp8    scale (bfloat16), then a byte a number: E4M3 without infinities, scale = most / 448
//   int4   for each 32 numbers a scale (bfloat16), then half a byte a number, the lower half first:
//          x = scale * (q - 8); the number furthest from 0 is q = 0, on whichever side it lies
//
// The scale belongs to a token, not to a page of them: a page is filled token by token and in
// prompt chunks of any size, and a scale over all of it would make what a token reads depend on
// its neighbours and on the chunk. Both devices write the same bytes of finite numbers. Thread
// safety: pure functions; of the kernel, alignment, errors: kernels/device/launch.h. NaN and
// infinities come back as NaN, as one row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// row: KvRowBytes(format, x.size()) bytes. REQUIRES: a format other than kModel, an even x.size().
void PackKvRow(KvFormat format, std::span<const float> x, uint8_t* row);
void UnpackKvRow(KvFormat format, const uint8_t* row, std::span<float> x);

// Packs keys and values of rows as they are to their pages of `layer`.
struct WriteKvRows {
  static constexpr const char* kName = "WriteKvRows";
  const void* rows_kv = nullptr;  // Nkv heads of keys, then of values: T[Nkv * D] both, of row 0
  int64_t stride = 0;             // elements from row to row; without values where kv.keys_only
  PagedRows rows;
  int32_t layer = 0;
  PagedKv kv;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Those behind the `heads` queries of rows as RopeAndWriteKv (kernels/rope.h) has them.
inline WriteKvRows BehindQueries(const void* qkv, DType dtype, int32_t heads, const PagedRows& rows,
                                 int32_t layer, const PagedKv& kv) {
  const int64_t queries = int64_t{heads} * kv.head_dim,
                width = queries + int64_t{kv.keys_only ? 1 : 2} * kv.kv_heads * kv.head_dim;
  return {.rows_kv = static_cast<const std::byte*>(qkv) +
                     queries * static_cast<int64_t>(ElementSize(dtype)),
          .stride = width,
          .rows = rows,
          .layer = layer,
          .kv = kv};
}

}  // namespace plumb::kernels
