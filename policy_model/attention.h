// Causal grouped-query attention of a packed batch, on whichever device: kernels/attention_varlen on the CPU, LibTorch's
// variable-length flash (bfloat16) and memory-efficient (float32) attention on CUDA.
//
// Shapes as in kernels/attention_varlen.h; shape.cu_seqlens lies in the device's memory. Thread safety: pure functions of
// their buffers. On CUDA the results of LibTorch are copied into the caller's buffers (its operators take no outputs).
#pragma once

#include "kernels/attention_varlen.h"

namespace plumb::policy_model {

// Floats of `lse` that AttentionForward fills and AttentionBackward reads.
int64_t AttentionLseElements(const kernels::Launch& launch, const kernels::VarlenShape& shape);

void AttentionForward(const kernels::Launch& launch, const kernels::VarlenShape& shape, const void* qkv, void* out,
                      float* lse);

// scratch: float[kernels::AttentionVarlenScratch(shape)], unused on CUDA.
void AttentionBackward(const kernels::Launch& launch, const kernels::VarlenShape& shape, const void* dout, const void* qkv,
                       const void* out, const float* lse, void* dqkv, float* scratch);

}  // namespace plumb::policy_model
