// Clips every gradient by itself to [-bound, bound], in place. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/update/adamw.h"

namespace plumb::kernels {

// out[0] = how many were clipped. What is not finite stays as it is, and is none of them: whoever
// looks for it behind this has to find it.
struct ClipValue {
  static constexpr const char* kName = "ClipValue";
  void* grad = nullptr;  // [n] of grad_dtype
  DType grad_dtype = DType::kFloat32;
  int64_t n = 0;
  float bound = 0;            // > 0; of BFloat16 gradients, as that rounds it
  double* scratch = nullptr;  // [kNormScratch]
  double* out = nullptr;      // [1]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
