// SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020) over a merged projection: out = silu(gate) * up.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// gate_up: T[rows, 2 * ffn], gate first; out: T[rows, ffn].
void SwigluForward(const Launch& launch, const void* gate_up, int64_t rows, int64_t ffn, void* out);

// dgate_up: T[rows, 2 * ffn]; may be gate_up itself.
void SwigluBackward(const Launch& launch, const void* dout, const void* gate_up, int64_t rows, int64_t ffn, void* dgate_up);

}  // namespace plumb::kernels
