// How the CPU's own bfloat16 products multiply on this processor.
//
// Purpose: the choice between library and own products, and between the two ways that those go,
// made once and the same on every run.
// Measured (docs/benchmarks.md): a Sapphire Rapids core without AMX reaches 82 GFLOP/s by the bf16
// dot product instruction and 170 by fp32 multiply-adds, a Zen 4 core 235 and 117. Without AVX-512
// libraries multiply bfloat16 element by element. With AMX the library's products are faster.
// Thread safety: pure function. No errors.
#pragma once

namespace plumb::kernels {

enum class Bf16Words {
  kNone,    // the library's products are better
  kFloats,  // widened, in fp32 lanes
  kPairs,   // by the dot product instruction
};

Bf16Words OwnBf16Words();

}  // namespace plumb::kernels
