// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) over flat buffers, one pass.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

struct AdamwOptions {
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0;
  float grad_scale = 1;  // multiplies every gradient (clipping, averaging)
  int64_t step = 1;      // 1-based, for bias correction
};

// master, m, v, grad: float[n]; param: T[n] receives the rounded master (may be nullptr when T is float and param is master).
// decay: the weight decay applies where decay_mask[i / kDecayBlock] != 0; nullptr: everywhere.
inline constexpr int64_t kDecayBlock = 64;
void AdamwUpdate(const Launch& launch, float* master, float* m, float* v, const float* grad, const uint8_t* decay_mask,
                 int64_t n, const AdamwOptions& options, void* param);

// out[0] = sum of squares of grad[0..n) in a fixed order; NaN or infinity stay. scratch: double[kNormScratch].
inline constexpr int64_t kNormScratch = 4096;
void SumOfSquares(const Launch& launch, const float* grad, int64_t n, double* scratch, double* out);

}  // namespace plumb::kernels
