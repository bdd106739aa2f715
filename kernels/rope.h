// Rotary position embedding (Su et al., "RoFormer", 2021), half-split layout as HF's Llama family has it: element i of
// the first half of a head turns with element i of the second half by the angle position * theta^(-2i/D).
#pragma once

#include "kernels/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// Fills cos_sin: float[max_positions, D] with D/2 cosines then D/2 sines a row (computed in double). Host memory.
void RopeTable(int64_t max_positions, int64_t head_dim, double theta, float* cos_sin);

// In place on qkv: T[rows, (Nq + 2 Nkv) * D], heads in the order q, k, v; v is left alone. position: int32[rows].
// `inverse` turns back: the backward of the rotation.
void RopeInPlace(const Launch& launch, void* qkv, const int32_t* position, const float* cos_sin, int64_t rows,
                 int32_t heads, int32_t kv_heads, int32_t head_dim, bool inverse);

// Generation: rotates q in place and writes rotated k and v of every row to its page of `layer`.
void RopeAndWriteKv(const Launch& launch, void* qkv, const PagedRows& rows, const float* cos_sin, int32_t heads,
                    int32_t layer, const PagedKv& kv);

}  // namespace plumb::kernels
