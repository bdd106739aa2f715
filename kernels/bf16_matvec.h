// bf16 matrix product for a few rows: decoding one or a few sequences on the CPU, where reading the
// weights is all the time.
//
// Library products are made for large batches: at one row oneDNN reads the weights at half the
// memory's speed. Here they are streamed once for up to eight rows. Every output is one sum over k
// in a fixed order with fp32 accumulators, whatever the number of rows and threads. Thread safety:
// pure function of its buffers; OpenMP inside.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

// From this many rows on a library product is the better choice.
inline constexpr int64_t kBf16MatvecRows = 8;

// y[m, n] = x[m, k] w[n, k]^T, added to y when `accumulate` (the sum over k is finished and rounded
// to fp32 first). x, w: BFloat16; y: BFloat16 or float as `y_dtype` says. Any m >= 1, best up to
// kBf16MatvecRows. CPU only: on CUDA small products go through cuBLAS (kUnsupported).
struct Bf16Matvec {
  static constexpr const char* kName = "Bf16Matvec (on CUDA: cuBLAS, through policy_model/ops)";
  const BFloat16* x = nullptr;  // [m, k]
  const BFloat16* w = nullptr;  // [n, k]
  int64_t m = 0, n = 0, k = 0;
  bool accumulate = false;
  DType y_dtype = DType::kBFloat16;
  void* y = nullptr;  // [m, n]
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
