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
// its neighbours and on the chunk. CPU only. Thread safety: pure functions. Errors: NaN and
// infinities come back as NaN, as one row.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/paged_kv.h"

namespace plumb::kernels {

// row: KvRowBytes(format, x.size()) bytes. REQUIRES: a format other than kModel, an even x.size().
void PackKvRow(KvFormat format, std::span<const float> x, uint8_t* row);
void UnpackKvRow(KvFormat format, const uint8_t* row, std::span<float> x);

}  // namespace plumb::kernels
