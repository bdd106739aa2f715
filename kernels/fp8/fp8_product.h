// The product of two matrices in FP8 (quantise_fp8.h), on the CPU: what model.products = "fp8"
// computes there, and the reference of what LibTorch computes on a GPU
// (policy_model/layers/fp8/fp8_linear.h). Sums are float32, in an order that depends on k alone.
//
// Thread safety, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/fp8/fp8_codes.h"

namespace plumb::kernels {

// y[m, n] = (sum over k of a[m, k] b[n, k]) a_scale[m] b_scale[n], added to y when `accumulate`.
struct Fp8Product {
  static constexpr const char* kName = "Fp8Product";
  const uint8_t* a = nullptr;  // [m, k] of a_format
  const float* a_scale = nullptr;
  Fp8 a_format = Fp8::kE4M3;
  const uint8_t* b = nullptr;  // [n, k] of E4M3
  const float* b_scale = nullptr;
  int64_t m = 0, n = 0, k = 0;
  bool accumulate = false;
  void* y = nullptr;  // T[m, n]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
