// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) over flat buffers,
// one pass. Gradients are float or BFloat16. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct AdamwOptions {
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0;
  float grad_scale = 1;  // multiplies every gradient (clipping, averaging)
  int64_t step = 1;      // 1-based, for bias correction
};

inline constexpr int64_t kDecayBlock = 64;

struct AdamwUpdate {
  static constexpr const char* kName = "AdamwUpdate";
  float* master = nullptr;     // [n]
  float* m = nullptr;          // [n]
  float* v = nullptr;          // [n]
  const void* grad = nullptr;  // [n] of grad_dtype
  DType grad_dtype = DType::kFloat32;
  // The weight decay applies where decay_mask[i / kDecayBlock] != 0; nullptr: everywhere.
  const uint8_t* decay_mask = nullptr;
  int64_t n = 0;
  AdamwOptions options;
  // T[n] receives the rounded master; nullptr when T is float and the parameters are the master
  void* param = nullptr;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

inline constexpr int64_t kNormScratch = 4096;

// out[0] = sum of squares of grad[0..n) in a fixed order; NaN or infinity stay.
struct SumOfSquares {
  static constexpr const char* kName = "SumOfSquares";
  const void* grad = nullptr;  // [n] of grad_dtype
  DType grad_dtype = DType::kFloat32;
  int64_t n = 0;
  double* scratch = nullptr;  // [kNormScratch]
  double* out = nullptr;      // [1]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
